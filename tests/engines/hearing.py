"""Human speech, and ways to have an engine hear it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from streamsrv.engines.base import Hypothesis, Listener
from streamsrv.errors import EngineLost

SPEECH = Path(__file__).parents[1] / "data" / "speech"
PIECE = 3_200
"""Bytes of 100 ms."""


def recording(name: str) -> bytes:
    """int16 samples, 16 000 Hz, mono."""
    samples, rate = soundfile.read(SPEECH / f"{name}.flac", dtype="int16")
    assert rate == 16_000
    return bytes(np.asarray(samples, dtype="<i2").tobytes())


def reference(name: str) -> list[str]:
    return (SPEECH / f"{name}.txt").read_text().split()


def texts(heard: Hypothesis) -> list[str]:
    return [word.text for word in heard.words]


async def hear(listener: Listener, samples: bytes, *, piece: int = PIECE) -> Hypothesis:
    """One segment, in pieces, to its end."""
    for start in range(0, len(samples), piece):
        await listener.hear(samples[start : start + piece], final=False)
    return await listener.hear(b"", final=True)


async def hear_with_replays(listener: Listener, samples: bytes) -> Hypothesis:
    """As the server does it: the whole segment again when its worker is lost."""
    while True:
        try:
            return await hear(listener, samples, piece=16_000)
        except EngineLost:
            continue


def word_errors(truth: list[str], heard: list[str]) -> float:
    """Wrong, missing and added words per word of ``truth``."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(truth, 1):
        corner, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (word != other))
    return row[-1] / len(truth)


def common_start(hypotheses: list[list[str]]) -> list[str]:
    """The words all of them begin with."""
    start: list[str] = []
    for words in zip(*hypotheses, strict=False):
        if len(set(words)) > 1:
            break
        start.append(words[0])
    return start


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def open_files(pid: int | None = None) -> int:
    return len(os.listdir(f"/proc/{pid or os.getpid()}/fd"))


async def until(true: Callable[[], bool], *, within_s: float = 20.0) -> None:
    """Wait for other processes."""
    async with asyncio.timeout(within_s):
        while not true():  # noqa: ASYNC110  (other processes set no event of ours)
            await asyncio.sleep(0.01)
