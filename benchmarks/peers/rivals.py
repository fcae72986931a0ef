"""Who races: how each server is started, and how it is spoken to.

Each gets the same model, all cores, and of its settings those that serve it best here:

* all: ``HF_HUB_OFFLINE=1``, and as many threads as there are cores where it asks OpenMP (streamsrv finds that itself);
* WhisperLive: one model for all (``single_model``), batched across clients with a beam of 1 (``batch_enabled``), which
  its default with a beam of 5 behind a lock is not faster than; admission limits out of the way;
* WhisperLiveKit: its policy for this backend, LocalAgreement; log level ``ERROR``; raw samples instead of one ffmpeg a
  client.  Its prompt is left out while it is empty: two tokens that say nothing, but models without training on prompts
  stumble over them;
* voice detectors of both are off for tones, which are no voices, and on for people.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from benchmarks.peers import ears
from benchmarks.peers.environments import prepare

CAP = 200
"""Clients a rival is told to take at most: none is refused by a number somebody wrote down."""


class Runner(msgspec.Struct, frozen=True, kw_only=True):
    """A server that can be started."""

    name: str
    version: str
    command: Sequence[str]
    """``{port}`` stands for the port."""
    environment: Mapping[str, str]
    ear: Callable[[int], ears.Ear]

    def told(self, names: Mapping[Path, str]) -> str:
        """The command line for people; places of this machine have the names given."""
        line = shlex.join(self.command)
        for place, name in {**names, Path(sys.executable): "$PYTHON"}.items():
            line = line.replace(str(place), name)
        return " ".join([*(f"{key}={value}" for key, value in self.environment.items()), line])


def streamsrv(model: Path, data: Path) -> Runner:
    """This server, as it comes."""
    from streamsrv import __version__

    command = [sys.executable, "-m", "streamsrv", "serve", "--port", "{port}", "--engine", "whisper"]
    command += ["--model", str(model), "--data-dir", str(data), "--log-level", "warning"]
    return Runner(name="streamsrv", version=__version__, command=command, environment={}, ear=ears.Streamsrv)


def naive(model: Path, _: Path, *, voices: bool) -> Runner:
    """``benchmarks.peers.naive``."""
    from importlib.metadata import version

    command = [sys.executable, "-m", "benchmarks.peers.naive", "--model", str(model), "--port", "{port}"]
    return Runner(
        name="naive",
        version=f"faster-whisper {version('faster-whisper')}",
        command=command,
        environment=_environment(),
        ear=ears.Naive,
    )


WHISPERLIVE = (
    "from whisper_live.server import TranscriptionServer; "
    "TranscriptionServer().run('127.0.0.1', port={port}, backend='faster_whisper', "
    "faster_whisper_custom_model_path={model!r}, single_model=True, max_clients={cap}, max_connection_time=3600, "
    "batch_enabled=True, batch_max_queue_wait_s=1e9, batch_max_admissions_per_s=1e9)"
)


def whisperlive(model: Path, folder: Path, *, voices: bool) -> Runner:
    """WhisperLive from its wheel."""
    code = WHISPERLIVE.replace("{model!r}", repr(str(model))).replace("{cap}", str(CAP))
    return Runner(
        name="whisperlive",
        version="0.10.0",
        command=[str(prepare("whisperlive", folder)), "-c", code],
        environment=_environment(),
        ear=partial(ears.WhisperLive, use_vad=voices),
    )


WHISPERLIVEKIT = (
    "from whisperlivekit.local_agreement.backends import FasterWhisperASR as Asr; heard = Asr.transcribe; "
    "Asr.transcribe = lambda self, audio, init_prompt='': heard(self, audio, init_prompt or None); "
    "from whisperlivekit.cli import main; main()"
)


def whisperlivekit(model: Path, folder: Path, *, voices: bool) -> Runner:
    """WhisperLiveKit from its wheel."""
    command = [str(prepare("whisperlivekit", folder)), "-c", WHISPERLIVEKIT, "--host", "127.0.0.1", "--port", "{port}"]
    command += ["--backend", "faster-whisper", "--backend-policy", "localagreement"]
    command += ["--model_dir", str(model), "--lan", "en", "--pcm-input", "--warmup-file", "", "-l", "ERROR"]
    command += [] if voices else ["--no-vac", "--no-vad"]
    return Runner(
        name="whisperlivekit",
        version="0.2.26",
        command=command,
        environment=_environment(),
        ear=ears.WhisperLiveKit,
    )


RIVALS: Mapping[str, Callable[..., Runner]] = {
    "naive": naive,
    "whisperlive": whisperlive,
    "whisperlivekit": whisperlivekit,
}


def _environment() -> dict[str, str]:
    return {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(os.cpu_count() or 1)}
