"""Feed a front, collect its marks, take its segments out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import soxr  # type: ignore[import-untyped]

from streamsrv.audio.front import Front
from streamsrv.commands import Options
from streamsrv.facts import ChannelStart, Mark, Position, SpeechBegan, SpeechEnded
from tests import oracle
from tests.audio.sounds import RATE, Floats


def encode(sound: Floats, options: Options) -> bytes:
    """``sound`` (16 kHz, one channel) in the options' format; channel ``c`` is ``c`` steps softer."""
    if options.sample_rate != RATE:
        sound = soxr.resample(sound, RATE, options.sample_rate)
    frames = np.stack([sound / 2**channel for channel in range(options.channels)], axis=1)
    if options.encoding == "pcm_f32le":
        return bytes(frames.astype("<f4").tobytes())
    if options.encoding == "pcm_s24le":
        wide = np.clip(np.rint(frames * 2**23), -(2**23), 2**23 - 1).astype("<i4")
        return bytes(wide[..., np.newaxis].view("u1")[..., :3].tobytes())
    samples = np.clip(np.rint(frames * 32_768), -32_768, 32_767).astype("<i2")
    if options.encoding == "pcm_s16le":
        return bytes(samples.tobytes())
    return _companded(samples, options.encoding)


def _companded(samples: np.ndarray[tuple[int, int], np.dtype[np.int16]], encoding: str) -> bytes:
    """The nearest of the 256 codes."""
    table = np.array([oracle.mulaw(c) if encoding == "mulaw" else oracle.alaw(c) for c in range(256)])
    order = np.argsort(table)
    steps = table[order]
    nearest = np.clip(np.searchsorted((steps[1:] + steps[:-1]) / 2, samples), 0, 255)
    return order[nearest].astype("u1").tobytes()


class Listening:
    """A front and all it told; ``pieces`` says how the bytes are split."""

    def __init__(self, options: Options | None = None, starts: Sequence[ChannelStart] = ()) -> None:
        self.front = Front(options or Options(), starts=starts)
        self.marks: list[Mark] = []

    def hear(self, data: bytes, piece: int = 1 << 20, now: float = 0.0) -> Listening:
        for at in range(0, len(data), piece):
            self.marks += self.front.feed(data[at : at + piece], now)
        return self

    def finish(self, now: float = 0.0) -> Listening:
        self.marks += self.front.finish(now)
        return self

    @property
    def boundaries(self) -> list[SpeechBegan | SpeechEnded]:
        return [mark for mark in self.marks if isinstance(mark, SpeechBegan | SpeechEnded)]

    def segments(self, channel: int = 0) -> list[tuple[Position, Position]]:
        """``(start, stop)`` of all closed segments, cuts included."""
        found: list[tuple[Position, Position]] = []
        start = 0
        for mark in self.boundaries:
            if isinstance(mark, SpeechBegan) and mark.channel == channel:
                start = mark.start
            elif isinstance(mark, SpeechEnded) and mark.channel == channel:
                found.append((start, mark.stop))
                start = mark.stop
        return found

    def audio(self, channel: int = 0) -> list[bytes]:
        """Samples of all closed segments; they must not have been released."""
        return [self.front.read(channel, start, stop) for start, stop in self.segments(channel)]
