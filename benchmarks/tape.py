"""Audio for the load benchmark: a loop of 20 ms frames, each of which can be told from every other.

The lowest bits of a frame's first ``CODE_BITS`` samples hold its number on the tape.  One step of 32 768 is nothing to
a detector, and makes every loss, doubling or exchange of frames visible in the samples themselves.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

FRAME_SAMPLES = 320
FRAME_BYTES = 2 * FRAME_SAMPLES
FRAME_MS = 20
RATE_HZ = 16_000
FRAMES = 3_000
"""Frames of a tape, one minute: as much as the server's ring holds, so no two frames in it are equal."""
CODE_BITS = 12
NOISE = 8.0
"""Standard deviation of what is no speech, in steps of int16: about -72 dBFS, a quiet room."""

Samples = npt.NDArray[np.int16]


def make_tape(speech_file: Path, speech_share: float) -> bytes:
    """One minute of int16 samples at 16 kHz: stretches of a recording and of noise by turns.

    Args:
        speech_file: recording of a voice, 16 kHz, mono.
        speech_share: share of the tape that is recording, 0.0 to 1.0.
    """
    samples = np.random.default_rng(7).normal(0.0, NOISE, FRAMES * FRAME_SAMPLES).astype(np.int16)
    if speech_share > 0:
        voice = read(speech_file)
        voice = voice[: len(voice) // FRAME_SAMPLES * FRAME_SAMPLES]
        turn = round(len(voice) / FRAME_SAMPLES / speech_share) * FRAME_SAMPLES
        for start in range(0, len(samples) - len(voice) + 1, turn):
            samples[start : start + len(voice)] = voice
    return _numbered(samples).tobytes()


def read(path: Path) -> Samples:
    """The samples of a recording of 16 kHz, its first channel.

    Raises:
        ValueError: another rate.
    """
    samples, rate = soundfile.read(path, dtype="int16", always_2d=True)
    if rate != RATE_HZ:
        raise ValueError(f"{path.name} has {rate} samples a second; recordings of {RATE_HZ} are wanted")
    first: Samples = samples[:, 0]
    return first


def number_of(frame: bytes) -> int:
    """The number a frame carries."""
    return sum((frame[2 * bit] & 1) << bit for bit in range(CODE_BITS))


def _numbered(samples: Samples) -> Samples:
    frames = samples.reshape(-1, FRAME_SAMPLES)
    codes = (np.arange(len(frames))[:, None] >> np.arange(CODE_BITS)) & 1
    frames[:, :CODE_BITS] = (frames[:, :CODE_BITS] & ~np.int16(1)) | codes.astype(np.int16)
    return frames.reshape(-1).astype("<i2")
