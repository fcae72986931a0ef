"""How Whisper is loaded, how large its windows are, and how much effort an answer is worth."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from streamsrv.engines.base import WINDOWS_S

LONGEST_S: Final = WINDOWS_S[-1]
"""No Whisper hears more at once."""

Temperature = Annotated[float, Meta(ge=0, le=1)]


class WhisperSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How Whisper listens."""

    model: Annotated[
        str | None, Meta(description="Folder of a CTranslate2 model, or the name of one on this disk; unset: the best.")
    ] = None
    device: Annotated[
        str, Meta(pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="Where it computes: auto, cpu, cuda or cuda:1.")
    ] = "auto"
    device_index: Annotated[
        tuple[Annotated[int, Meta(ge=0, le=63)], ...],
        Meta(max_length=64, description="GPUs to use, as [0, 1]; none: the first."),
    ] = ()
    compute_type: Annotated[
        str, Meta(pattern=r"^[a-z0-9_]+$", description="Precision, as int8, float16 or float32; default: what suits.")
    ] = "default"
    num_workers: Annotated[
        Annotated[int, Meta(ge=1, le=64)] | None,
        Meta(description="Batches computed at once; unset: two per GPU, or one per core, 8 at most."),
    ] = None
    cpu_threads: Annotated[
        Annotated[int, Meta(ge=1, le=256)] | None,
        Meta(description="Threads of each worker on a CPU; unset: the cores divided among them."),
    ] = None
    window_floor_s: Annotated[
        int, Meta(ge=1, le=30, description="Shortest window in seconds; shorter is cheaper and may be less accurate.")
    ] = 5
    final_window: Annotated[
        Literal["fitted", "full"],
        Meta(description="Window of finals: fitted to the audio, or the full 30 s Whisper was trained on."),
    ] = "fitted"
    batch: Annotated[
        Annotated[int, Meta(ge=1, le=256)] | None,
        Meta(description="Windows decoded together at most; unset: 8 on a CPU, 32 on a GPU."),
    ] = None
    beam: Annotated[
        Annotated[int, Meta(ge=1, le=16)] | None,
        Meta(description="Beam of finals; partials are greedy; unset: 1 on a CPU, 5 on a GPU."),
    ] = None
    partial_words: Annotated[
        Literal["aligned", "estimated"],
        Meta(description="Times and confidences of words in partials: measured, or guessed, which is cheaper."),
    ] = "aligned"
    temperatures: Annotated[
        tuple[Temperature, ...],
        Meta(max_length=8, description="Temperatures tried in turn on finals that look wrong."),
    ] = (0.2, 0.6, 1.0)
    least_logprob: Annotated[
        float, Meta(ge=-20, le=0, description="Mean log probability under which a text looks wrong.")
    ] = -1.0
    most_compression: Annotated[
        float, Meta(ge=1, le=100, description="Compression ratio over which a text looks like a loop.")
    ] = 2.4
    most_no_speech: Annotated[
        float, Meta(ge=0, le=1, description="Probability of no speech over which an unlikely text is dropped.")
    ] = 0.6
    tokens_per_s: Annotated[
        float,
        Meta(
            ge=1,
            le=50,
            description="Tokens a second of a window may give, its pauses included; more is a loop, and is cut.",
        ),
    ] = 10.0
    doubt_sounds: Annotated[
        bool, Meta(description="Whether sounds unlike speech (hiss, hum, music) need surer words to count.")
    ] = True
