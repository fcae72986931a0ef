"""Asking a window engine: audio in, words out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile as sf

from streamsrv.engines.base import Hypothesis, Window
from streamsrv.engines.whisper import WhisperEngine
from streamsrv.facts import Word

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
