"""What speakers say in a run: words made of tones, whose text is exact by construction, or recorded digits."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
import soundfile
import soxr  # type: ignore[import-untyped]

from tests.models import tone

RECORDINGS = Path(__file__).parents[2] / "models" / "digits" / "samples"
LOW_WORDS = tone.WORDS[:12]
"""Words whose tones a rate of 8 000 Hz can carry."""

Samples: TypeAlias = npt.NDArray[np.int16]


class Utterance(msgspec.Struct, frozen=True, kw_only=True):
    """Words spoken in one go, and the silence after them."""

    words: tuple[str, ...]
    recording: str | None = None
    """File of recorded digits that says them; none: tones."""
    pause_s: float

    @property
    def spoken_s(self) -> float:
        """Length of the words alone."""
        if self.recording is None:
            return len(self.words) * tone.SLOT_S
        return len(recorded(self.recording)) / tone.RATE_HZ


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """A word and where it was said, in samples at 16 000 Hz."""

    channel: int
    word: str
    start: int
    stop: int


class Speech(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one speaker says, on one channel or several."""

    rate_hz: int = tone.RATE_HZ
    encoding: str = "pcm_s16le"
    lead_s: float = 1.0
    channels: tuple[tuple[Utterance, ...], ...]

    @property
    def seconds(self) -> float:
        return max(self.lead_s + sum(one.spoken_s + one.pause_s for one in channel) for channel in self.channels)

    @property
    def frame_bytes(self) -> int:
        return len(self.channels) * (4 if self.encoding == "pcm_f32le" else 2)

    def words(self, channel: int) -> list[str]:
        return [word for one in self.channels[channel] for word in one.words]

    def placed(self) -> list[Placed]:
        """Every tone word with its true place; recorded words have none."""
        found: list[Placed] = []
        for number, channel in enumerate(self.channels):
            at = round(self.lead_s * tone.RATE_HZ)
            for one in channel:
                starts = [at + round(n * tone.SLOT_S * tone.RATE_HZ) for n in range(len(one.words))]
                length = round(tone.TONE_S * tone.RATE_HZ)
                if one.recording is None:
                    found += [
                        Placed(channel=number, word=word, start=start, stop=start + length)
                        for word, start in zip(one.words, starts, strict=True)
                    ]
                at += round((one.spoken_s + one.pause_s) * tone.RATE_HZ)
        return found

    def audio(self) -> bytes:
        """All of it as a client sends it: ``rate_hz``, ``encoding``, channels interleaved."""
        tracks = [_track(channel, self.lead_s) for channel in self.channels]
        whole = np.zeros((max(map(len, tracks)), len(tracks)), np.int16)
        for number, track in enumerate(tracks):
            whole[: len(track), number] = track
        if self.rate_hz != tone.RATE_HZ:
            whole = soxr.resample(whole, tone.RATE_HZ, self.rate_hz)
        if self.encoding == "pcm_f32le":
            return (whole.astype("<f4") / 32_768).tobytes()
        return whole.astype("<i2").tobytes()


def _track(utterances: Sequence[Utterance], lead_s: float) -> Samples:
    pieces = [_quiet(lead_s)]
    for one in utterances:
        pieces += [tone.sound(one.words) if one.recording is None else recorded(one.recording), _quiet(one.pause_s)]
    return np.concatenate(pieces)


def _quiet(seconds: float) -> Samples:
    return np.zeros(round(seconds * tone.RATE_HZ), np.int16)


@functools.cache
def recorded(name: str) -> Samples:
    """A recording at 16 000 Hz."""
    audio, rate = soundfile.read(RECORDINGS / name, dtype="int16")
    return np.asarray(audio if rate == tone.RATE_HZ else soxr.resample(audio, rate, tone.RATE_HZ), np.int16)


@functools.cache
def recordings() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Names of the recordings of digits, and what is said in each."""
    listed = json.loads((RECORDINGS / "index.json").read_text("utf-8"))
    return tuple((one["file"], tuple(one["words"])) for one in listed)
