"""The first batches, before anybody waits for them: libraries load, memory is taken, and what is missing shows."""

from __future__ import annotations

import numpy as np

from streamsrv.engines._whisper import prompts
from streamsrv.engines._whisper.model import Loaded
from streamsrv.engines._whisper.settings import LONGEST_S, WhisperSettings
from streamsrv.engines._whisper.windows import columns

TOKENS = 4
"""Tokens decoded while warming up."""


def warm(model: Loaded, settings: WhisperSettings, *, beam: int, batch: int) -> None:
    """Encode, decode and align windows of silence in the shapes that will come; blocks.

    Raises:
        RuntimeError: of CTranslate2: no memory, or a library is missing.
    """
    lengths = [columns(settings.window_floor_s)]
    if settings.final_window == "full":
        lengths.append(columns(LONGEST_S))
    tongue = model.tongue(next(iter(sorted(model.languages))), "transcribe")
    prompt = prompts.sort_of(tongue)
    together = batch if model.core.device != "cpu" else 1
    for frames in lengths:
        for count in sorted({1, together}):
            features = np.zeros((count, len(model.filters), frames), np.float32)
            encoded = model.core.encode(model.store(features))
            for width in {1, beam}:
                model.core.generate(
                    encoded,
                    [prompt] * count,
                    beam_size=width,
                    max_length=prompts.longest(TOKENS, len(prompt)),
                    return_scores=True,
                    return_no_speech_prob=True,
                )
            model.core.align(encoded, tongue.sot_sequence, [[0]] * count, [frames] * count)
