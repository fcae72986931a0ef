"""Sounds for the audio tests: a person, machines, a band.  All int16 at 16 000 Hz, made or read, always the same."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile

RATE = 16_000
SPEECH = Path(__file__).parents[1] / "data" / "speech"

Floats: TypeAlias = npt.NDArray[np.float64]
Samples: TypeAlias = npt.NDArray[np.int16]


def at_level(sound: Floats, dbfs: float) -> Floats:
    """``sound`` with this root mean square, full scale 1.0."""
    return sound * float(10 ** (dbfs / 20) / np.sqrt(np.mean(sound**2)))


def to_int16(sound: Floats) -> Samples:
    return np.clip(np.rint(sound * 32_768), -32_768, 32_767).astype(np.int16)


@cache
def person() -> Floats:
    """11 s of a president."""
    sound, rate = soundfile.read(SPEECH / "jfk.flac", dtype="float64")
    assert rate == RATE
    return np.asarray(sound, np.float64)


def silence(seconds: float) -> Floats:
    return np.zeros(round(seconds * RATE))


def times(seconds: float) -> Floats:
    return np.arange(round(seconds * RATE)) / RATE


def hiss(seconds: float, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def hum(seconds: float, hz: float = 50.0) -> Floats:
    """Mains with its harmonics."""
    t = times(seconds)
    return np.asarray(sum(np.sin(2 * np.pi * hz * k * t + k) / k for k in (1, 2, 3, 4, 5, 7, 9)))


def band(seconds: float) -> Floats:
    """Chords that fade, two a second, over a drum."""
    t = times(seconds)
    sound = np.zeros_like(t)
    for beat in range(int(2 * seconds)):
        since = np.maximum(t - beat / 2, 0.0)
        root = (220.0, 261.6, 329.6, 392.0)[beat % 4]
        chord = np.sum(
            [np.sin(2 * np.pi * root * m * k * since) / k for m in (1, 1.25, 1.5) for k in (1, 2, 3)], axis=0
        )
        drum = 3 * np.sin(2 * np.pi * 60 * since) * np.exp(-30 * since)
        sound += (t >= beat / 2) * (chord * np.exp(-3 * since) + drum)
    return sound


def square(seconds: float) -> Floats:
    return np.where(times(seconds) * 200 % 1 < 0.5, 1.0, -1.0)
