"""Asking a window engine: audio in, words out."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile as sf

from streamsrv.engines.base import Hypothesis, Window
from streamsrv.engines.whisper import WhisperEngine
from streamsrv.facts import Word
from tests.models import tone
from tests.support.processes import ROOT, free_port

Samples = npt.NDArray[np.int16]


def window(
    engine: WhisperEngine,
    audio: Samples,
    *,
    final: bool = True,
    prefix: Sequence[str] = (),
    language: str | None = None,
    prompt: str = "",
    hotwords: tuple[str, ...] = (),
) -> Window:
    """A window over all of ``audio``, of a session of its own."""
    attention = engine.attend(language=language, prompt=prompt, hotwords=hotwords)
    attention.take(audio.tobytes(), 0)
    words = tuple(Word(text=text, start=0, stop=0, confidence=1.0) for text in prefix)
    return Window(attention=attention, start=0, stop=len(audio), final=final, prefix=words)


def heard(engine: WhisperEngine, *windows: Window) -> list[Hypothesis]:
    """What is heard in windows asked together; an error fails the test."""
    answers = engine.hear(windows)
    assert len(answers) == len(windows)
    for answer in answers:
        assert isinstance(answer, Hypothesis), answer
    return [answer for answer in answers if isinstance(answer, Hypothesis)]


def texts(hypothesis: Hypothesis) -> list[str]:
    return [word.text for word in hypothesis.words]


def said(engine: WhisperEngine, audio: Samples, **how: object) -> list[str]:
    """The texts heard in one window."""
    return texts(heard(engine, window(engine, audio, **how))[0])  # type: ignore[arg-type]


def sentences(count: int, *, longest: int = 12, seed: int = 1) -> list[list[str]]:
    chance = random.Random(seed)
    return [chance.choices(tone.WORDS, k=chance.randint(1, longest)) for _ in range(count)]


def in_batches(engine: WhisperEngine, wanted: Sequence[list[str]], together: int) -> list[list[str]]:
    """What is heard in tones that say so, so many windows at once; every third is a final."""
    windows = [window(engine, tone.sound(words), final=n % 3 == 0) for n, words in enumerate(wanted)]
    batches = [windows[at : at + together] for at in range(0, len(windows), together)]
    return [texts(answer) for batch in batches for answer in heard(engine, *batch)]


async def by_threads(engine: WhisperEngine, wanted: Sequence[list[str]], threads: int) -> list[list[str]]:
    """What threads hear that ask at once, each in its share of the tones that say so."""
    windows = [window(engine, tone.sound(words)) for words in wanted]
    shares = [windows[n::threads] for n in range(threads)]
    answers = await asyncio.gather(*(asyncio.to_thread(heard, engine, *share) for share in shares))
    return [texts(answers[n % threads][n // threads]) for n in range(len(wanted))]


def ends_at_start(
    model: Path, place: Path, *, device: str, surroundings: dict[str, str] | None = None, within_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """A server that cannot start on this model, with its data under ``place``."""
    command = [sys.executable, "-m", "streamsrv", "serve", "--engine", "whisper", "--model", str(model)]
    command += ["--device", device, "--port", str(free_port()), "--data-dir", str(place / "data")]
    return subprocess.run(
        command, cwd=ROOT, env=surroundings, capture_output=True, text=True, timeout=within_s, check=False
    )


class Recording(NamedTuple):
    """A person saying digits."""

    audio: Samples
    words: list[str]
    ends_s: list[float]


def recordings(folder: Path) -> list[Recording]:
    """The samples that come with the digits model."""
    index = json.loads((folder / "samples" / "index.json").read_text())
    return [
        Recording(sf.read(folder / "samples" / each["file"], dtype="int16")[0], each["words"], each["word_end_s"])
        for each in index
    ]
