"""Audio that a voice activity detector takes for speech, and audio that it does not; made, not recorded."""

from __future__ import annotations

import numpy as np

RATE = 16_000


def voice(seconds: float, *, seed: int = 0, rate: int = RATE, level: float = 0.3) -> bytes:
    """A gliding pulse train through three formants, opened and closed four times a second; s16le mono."""
    n = int(seconds * rate)
    t = np.arange(n) / rate
    pitch = 120 + 20 * np.sin(2 * np.pi * 0.7 * t + seed)
    phase = np.cumsum(2 * np.pi * pitch / rate)
    sound = np.zeros(n)
    for harmonic in range(1, 28):
        f = harmonic * 125.0
        gain = sum(np.exp(-(((f - centre) / 150.0) ** 2)) for centre in (600, 1_200, 2_500)) + 0.05
        sound += gain * np.sin(harmonic * phase)
    sound *= 0.6 + 0.4 * np.sin(2 * np.pi * 4 * t)
    sound *= level / np.abs(sound).max()
    return (sound * 32_767).astype("<i2").tobytes()


def silence(seconds: float, *, rate: int = RATE) -> bytes:
    """Digital silence; s16le mono."""
    return bytes(int(seconds * rate) * 2)
