"""What is known of a speaker's voice and line: its level and its mean cepstrum.

The acoustic model was trained on utterances whose own mean was taken away.  PocketSphinx's live mode begins with a
constant that fits loud close speech, holds on to it for 8 s, and leaves frames of low energy unnormalised, so quiet
or unusual lines are heard badly.  We keep the level and the mean ourselves: both are found in the first moments of a
session, follow its audio, travel with the session from worker to worker, and end with it.
"""

from __future__ import annotations

import math
from typing import Final, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

Samples: TypeAlias = npt.NDArray[np.int16]
"""Shape ``(n,)``, 16 000 Hz, mono."""

DECODER_WEIGHT: Final = 500.0
"""Frames that a mean given to the decoder counts for in its own running sum."""
TYPICAL: Final = (40.0, 3.0, -1.0, *(0.0,) * 10)
"""Mean cepstrum of a voice nobody has heard yet."""
TYPICAL_WEIGHT: Final = 50.0
"""Frames (10 ms) that ``TYPICAL`` counts for."""
LONGEST_WEIGHT: Final = 500.0
"""Most frames the past counts for: the mean follows a speaker within 5 s of speech."""
LEVEL: Final = 1_500.0
"""Root mean square that speech is brought to; int16 units."""
PEAK: Final = 20_000.0
"""Gain never lifts the loudest sample known above this."""
GAIN_MOST: Final = 256.0
"""Most gain (48 dB); quieter audio is left quiet."""
GAIN_STEP: Final = 2.0
"""The gain of a session changes between segments only, and only when it is off by more than this factor."""
CEPSTRUM_PER_GAIN: Final = 10.0
"""First cepstral coefficient's rise per unit of ln(gain): 2 x sqrt(25 mel bands)."""


class Voice(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One session's speaker, as known at the start of a segment.  The default is a stranger."""

    mean: tuple[float, ...] = TYPICAL
    """Mean cepstrum, 13 coefficients, of audio after ``gain``."""
    weight: float = 0.0
    """Frames ``mean`` stands for; 0: a stranger."""
    gain: float = 1.0
    """Factor on the samples, ``1 / GAIN_MOST`` to ``GAIN_MOST``."""

    @property
    def stranger(self) -> bool:
        """Whether nothing of this voice was heard yet."""
        return self.weight <= 0.0

    def moved(self, block: tuple[float, ...], frames: int) -> Voice:
        """With ``frames`` more frames heard, whose mean is ``block``."""
        weight = self.weight or TYPICAL_WEIGHT
        total = weight + frames
        mean = tuple((old * weight + new * frames) / total for old, new in zip(self.mean, block, strict=True))
        return Voice(mean=mean, weight=min(total, LONGEST_WEIGHT), gain=self.gain)

    def at_gain(self, gain: float) -> Voice:
        """The same voice after another gain."""
        shift = 0.0 if self.stranger else CEPSTRUM_PER_GAIN * math.log(gain / self.gain)
        return Voice(mean=(self.mean[0] + shift, *self.mean[1:]), weight=self.weight, gain=gain)


def block_mean(before: tuple[float, ...], after: tuple[float, ...], frames: int) -> tuple[float, ...]:
    """Mean of the newest ``frames`` frames from the decoder's mean before and after them.

    Frames the decoder left out of its sum count as lying at ``before``.
    """
    total = DECODER_WEIGHT + frames
    return tuple((total * new - DECODER_WEIGHT * old) / frames for old, new in zip(before, after, strict=True))


def fitting_gain(samples: Samples, *, loudest: float | None = None) -> float:
    """The gain that brings speech to ``LEVEL``; 1.0 for digital silence.

    The level is that of the louder half of 20 ms frames, so pauses do not count.
    """
    frames = samples[: len(samples) // 320 * 320].astype(np.float64).reshape(-1, 320)
    if not frames.size:
        return 1.0
    energy = np.sort((frames**2).mean(axis=1))
    level = math.sqrt(float(energy[len(energy) // 2 :].mean()))
    peak = float(np.abs(frames).max()) if loudest is None else loudest
    if level < 1.0 or peak < 1.0:
        return 1.0
    return float(min(max(min(LEVEL / level, PEAK / peak), 1 / GAIN_MOST), GAIN_MOST))


def amplified(samples: Samples, gain: float) -> bytes:
    """int16 little-endian bytes of ``samples`` times ``gain``, clipped."""
    if gain == 1.0:
        return samples.tobytes()
    lifted = np.rint(samples.astype(np.float32) * np.float32(gain))
    return bytes(np.clip(lifted, -32768, 32767).astype("<i2").tobytes())
