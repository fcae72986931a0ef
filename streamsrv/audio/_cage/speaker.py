"""Decoded frames -> interleaved s16le of one rate and one number of channels, counted."""

from __future__ import annotations

import time
from typing import Final

import av
import numpy as np
from av.audio.frame import AudioFrame

from streamsrv.audio._cage.session import Refused, Session

LOWEST_RATE_HZ: Final = 8_000
RATE_STEP_HZ: Final = 25
"""Rates are multiples of this, as the front wants them (``audio.formats``)."""
SHORTFALL_S: Final = 0.25
"""Less than this may be missing at the end: decoders drop priming and padding."""
_FLOATS: Final = {"flt": np.float32, "fltp": np.float32, "dbl": np.float64, "dblp": np.float64}


class Speaker:
    """What decoders speak into.  The first frame decides rate and channels; later ones are converted to them."""

    def __init__(self, session: Session, container: str) -> None:
        self._session = session
        self._container = container
        self._codec = ""
        self._rate = 0
        self._channels = 0
        self._layout = ""
        self._resampler: av.AudioResampler | None = None
        self._shape: tuple[int, str, str] | None = None
        self._samples = 0
        self._hurt = False
        self.cpu_s = session.spec["cpu_s"]
        self.began_at = time.thread_time()
        """Processor time of this thread when it began."""
        self.began = False
        """Whether the layout was told."""
        self.claimed_s: float | None = None

    @property
    def seconds(self) -> float:
        """Decoded so far."""
        return self._samples / self._rate if self._rate else 0.0

    def claim(self, seconds: float | None) -> None:
        """Note how long the header says it is.

        Raises:
            Refused: longer than allowed.
        """
        if self.claimed_s is None and seconds:
            if seconds > self._session.spec["max_duration_s"]:
                raise Refused("long")
            self.claimed_s = seconds

    def expect(self, codec: str, rate_hz: int, channels: int) -> None:
        """Note what the header says; zeros where it says nothing.

        Raises:
            Refused: outside what is allowed.
        """
        if rate_hz:
            self._check(rate_hz, max(channels, 1))
        if not self._codec:
            self._codec, self._rate, self._channels = codec, rate_hz, channels

    def _check(self, rate_hz: int, channels: int) -> None:
        spec = self._session.spec
        if not LOWEST_RATE_HZ <= rate_hz <= spec["max_rate_hz"] or rate_hz % RATE_STEP_HZ:
            raise Refused("rate", rate_hz)
        if not 1 <= channels <= spec["max_channels"]:
            raise Refused("channels", channels)

    def hear(self, frame: AudioFrame) -> None:
        """One frame.

        Raises:
            Refused: the recording is longer than allowed, or turns into something else that is not allowed.
        """
        shape = (frame.sample_rate, frame.layout.name, frame.format.name)
        if shape != self._shape:
            self._turn(frame)
            self._shape = shape
        if frame.format.name in _FLOATS:
            _make_sound(frame)
        if self._resampler is not None:
            self._say(self._resampler.resample(frame))

    def drain(self) -> None:
        """What the converter still holds; before the frames of another container."""
        if self._resampler is not None:
            self._say(self._resampler.resample(None))
        self._resampler, self._shape = None, None

    def end(self) -> None:
        """Everything was heard.

        Raises:
            Refused: and it was nothing.
        """
        if not self.began:
            # A header that promises sound, and none of it can be had: that is not silence.
            hurt = self._hurt or (self.claimed_s or 0.0) > SHORTFALL_S
            if hurt or not self._rate or not self._channels:
                raise Refused("broken" if hurt else "silent")
            self._begin()

    def damaged(self) -> None:
        """Something could not be decoded."""
        self._hurt = True
        if self.began:
            self._session.warn("damaged")

    # --- inside ----------------------------------------------------------------------------------------------

    def _turn(self, frame: AudioFrame) -> None:
        """The frames take another shape: convert them to the recording's own."""
        self._check(frame.sample_rate, frame.layout.nb_channels)
        self.drain()
        if not self.began:
            self._rate, self._channels, self._layout = frame.sample_rate, frame.layout.nb_channels, frame.layout.name
            self._begin()
        elif (frame.sample_rate, frame.layout.nb_channels) != (self._rate, self._channels):
            self._session.warn("changed")
        self._resampler = av.AudioResampler(format="s16", layout=self._layout, rate=self._rate)

    def _begin(self) -> None:
        self.began = True
        self._session.layout(
            rate_hz=self._rate,
            channels=self._channels,
            container=self._container,
            codec=self._codec.removesuffix("float"),
            duration_s=self.claimed_s,
        )
        if self._hurt:
            self._session.warn("damaged")

    def _say(self, frames: list[AudioFrame]) -> None:
        for frame in frames:
            self._samples += frame.samples
            if self._samples > self._session.spec["max_duration_s"] * self._rate:
                raise Refused("long")
            self._session.emit(bytes(frame.planes[0])[: frame.samples * self._channels * 2])


def _make_sound(frame: AudioFrame) -> None:
    """Silence instead of what is no number, full scale instead of what is louder, in place: converters make clicks of
    both."""
    for plane in frame.planes:
        values = np.frombuffer(memoryview(plane), dtype=_FLOATS[frame.format.name])
        if not (np.abs(values) <= 1).all():
            np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
            np.clip(values, -1, 1, out=values)
