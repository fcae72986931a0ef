"""What a client sends, and how its samples relate to positions."""

from __future__ import annotations

import msgspec

from streamsrv.commands import Encoding, Options
from streamsrv.errors import BadRequest
from streamsrv.facts import RATE_HZ, Position

LOWEST_RATE_HZ = 8_000
HIGHEST_RATE_HZ = 192_000
RATE_STEP_HZ = 25
"""Rates are multiples of this, so that 120 ms, the grid of restart points, are whole client samples."""
MOST_CHANNELS = 8
"""Interleaved channels of one stream; more are refused."""
GRID = 1_920
"""Positions of 120 ms: restart points lie on its multiples, and there client samples are exact."""

SAMPLE_BYTES: dict[Encoding, int] = {
    "pcm_s16le": 2,
    "pcm_s24le": 3,
    "pcm_f32le": 4,
    "mulaw": 1,
    "alaw": 1,
    "container": 2,
}
"""What comes out of a container's decoder is s16le."""


class AudioFormat(msgspec.Struct, frozen=True, kw_only=True):
    """Layout of a client's bytes.  A *frame* is one sample of every channel."""

    encoding: Encoding
    rate_hz: int
    channels: int
    tracks: int
    """Channels transcribed on their own: ``channels``, or 1 for their average."""

    @classmethod
    def of(cls, options: Options) -> AudioFormat:
        """The format these options describe.

        Raises:
            BadRequest: encoding, rate or channels are outside what the front takes.
        """
        if options.encoding not in SAMPLE_BYTES:
            raise BadRequest(f"encoding {options.encoding!r} is unknown", hint=f"use one of {', '.join(SAMPLE_BYTES)}")
        rate = options.sample_rate
        if not LOWEST_RATE_HZ <= rate <= HIGHEST_RATE_HZ or rate % RATE_STEP_HZ:
            raise BadRequest(
                f"sample_rate {rate} is not usable",
                hint=f"use {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz, a multiple of {RATE_STEP_HZ}",
            )
        if not 1 <= options.channels <= MOST_CHANNELS:
            raise BadRequest(f"channels {options.channels} is not usable", hint=f"use 1 to {MOST_CHANNELS}")
        encoding = "pcm_s16le" if options.encoding == "container" else options.encoding
        return cls(encoding=encoding, rate_hz=rate, channels=options.channels, tracks=options.tracks)

    @property
    def resampled(self) -> bool:
        return self.rate_hz != RATE_HZ

    @property
    def frame_bytes(self) -> int:
        return SAMPLE_BYTES[self.encoding] * self.channels

    @property
    def bytes_per_second(self) -> int:
        return self.frame_bytes * self.rate_hz

    def position(self, samples: int) -> Position:
        """Position that ``samples`` client samples (per channel) reach, rounded down."""
        return samples * RATE_HZ // self.rate_hz

    def samples(self, position: Position) -> int:
        """Client samples (per channel) before ``position``, rounded down; exact at multiples of 120 ms."""
        return position * self.rate_hz // RATE_HZ

    def frames_within(self, positions: int) -> int:
        """Client frames that certainly give no more than ``positions`` new samples."""
        return positions * self.rate_hz // RATE_HZ
