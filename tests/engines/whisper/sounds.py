"""Sounds in which nobody speaks, made reproducibly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Sound = npt.NDArray[np.float64]
RATE_HZ = 16_000


def times(seconds: float) -> Sound:
    return np.arange(round(seconds * RATE_HZ)) / RATE_HZ


def silence(seconds: float, seed: int) -> Sound:
    return np.zeros(round(seconds * RATE_HZ) + 0 * seed)


def hiss(seconds: float, seed: int) -> Sound:
    return 0.01 * np.random.default_rng(seed).standard_normal(len(times(seconds)))


def room(seconds: float, seed: int) -> Sound:
    """A room at night: mostly low, slowly swelling."""
    walk = np.cumsum(np.random.default_rng(seed).standard_normal(len(times(seconds))))
    walk -= np.convolve(walk, np.ones(800) / 800, "same")
    level: Sound = 0.005 * walk / walk.std()
    return level


def hum(seconds: float, seed: int) -> Sound:
    """Mains with its overtones, and a little hiss."""
    base = 2 * np.pi * (50, 60)[seed % 2] * times(seconds)
    tones = sum((0.05 / n * np.sin(n * base + n) for n in range(1, 8)), start=np.zeros(len(base)))
    return tones + 0.002 * np.random.default_rng(seed).standard_normal(len(base))


def music(seconds: float, seed: int) -> Sound:
    """Four plucked notes a second, each with overtones."""
    chance, out = np.random.default_rng(seed), []
    for _ in range(round(seconds * 4)):
        base = 2 * np.pi * 220 * 2 ** (chance.integers(0, 24) / 12) * times(0.25)
        tones = sum((0.1 / n * np.sin(n * base) for n in range(1, 5)), start=np.zeros(len(base)))
        out.append(tones * np.exp(-6 * times(0.25)))
    return np.concatenate(out)


def keys(seconds: float, seed: int) -> Sound:
    """Typing."""
    chance = np.random.default_rng(seed)
    out = 0.001 * chance.standard_normal(len(times(seconds)))
    for at in np.arange(0.05, seconds - 0.15, 0.16) + chance.uniform(0, 0.05):
        place = round(at * RATE_HZ)
        out[place : place + 300] += 0.2 * chance.standard_normal(300) * np.exp(-np.arange(300) / 60)
    return out


NOTHING: dict[str, Callable[[float, int], Sound]] = {
    made.__name__: made for made in (silence, hiss, room, hum, music, keys)
}


def samples(sound: Sound) -> npt.NDArray[np.int16]:
    return np.clip(np.round(sound * 32_768), -32_768, 32_767).astype(np.int16)
