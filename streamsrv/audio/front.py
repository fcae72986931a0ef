"""The front: a client's bytes in, marks out.  It owns rings, decoder, resampler, detectors and segmenters.

Any split of the same bytes gives the same samples, segments and restart points.  Nothing is overwritten: the owner
keeps an eye on ``room``, feeds no more than ``takes``, and releases what is durable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from streamsrv._native.pcm import Decoder
from streamsrv._native.ring import RingBuffer
from streamsrv.audio.channel import Channel
from streamsrv.audio.formats import GRID, AudioFormat
from streamsrv.audio.resample import WITHHELD, Resampler
from streamsrv.audio.vad import Vad, WebRtcVad
from streamsrv.commands import Options
from streamsrv.errors import RingFull
from streamsrv.facts import RATE_HZ, ChannelStart, Mark, Position

LEAD_IN: Position = 9_600
"""A resumed run hears so much (600 ms) before its earliest restart point: the resampler, the noise floor and the
detector are then as they were.  A multiple of 120 ms, so whole samples at every rate."""
QUIETEST_DBFS = -120.0
"""What is told for digital silence."""

NOTHING: tuple[Mark, ...] = ()

AudioBytes: TypeAlias = bytes | bytearray | memoryview
Tap: TypeAlias = Callable[[int, bytes], None]
"""``(channel, samples)``: int16 of the machine's order at 16 000 Hz, each sample once, in order."""


class Front:
    """Hears one stream.

    Args:
        options: the stream's options; their ranges are the caller's to check, except the format's.
        ring_s: seconds of audio each channel holds at most, at least 30.
        starts: where each channel of a resumed stream goes on; empty for a new stream.
        vad: makes one detector per channel; WebRTC's when omitted.

    Raises:
        BadRequest: the format is not usable.
        ValueError: ``starts`` does not fit the options.

    Times called ``now`` are monotonic seconds.  Not safe to share between threads.
    """

    __slots__ = (
        "_advance",
        "_catching_up",
        "_channels",
        "_decoder",
        "_frames",
        "_into_rings",
        "_resampler",
        "_rings",
        "_tapped",
        "layout",
        "resume_at",
        "tap",
    )

    def __init__(
        self,
        options: Options,
        *,
        ring_s: int = 60,
        starts: Sequence[ChannelStart] = (),
        vad: Callable[[], Vad] | None = None,
    ) -> None:
        self.layout = layout = AudioFormat.of(options)
        starts = starts or (ChannelStart(),) * layout.tracks
        if len(starts) != layout.tracks or any(start.restart % GRID for start in starts):
            raise ValueError(f"{layout.tracks} starts on multiples of {GRID} are wanted")
        self.resume_at: Position = max(0, min(start.restart for start in starts) - LEAD_IN)
        self._rings = tuple(RingBuffer(ring_s * RATE_HZ) for _ in starts)
        for ring in self._rings:
            ring.skip_to(self.resume_at)
        make = vad or (lambda: WebRtcVad(options.aggressiveness))
        self._channels = tuple(
            Channel(index, ring, make(), options, start)
            for index, (ring, start) in enumerate(zip(self._rings, starts, strict=True))
        )
        self._decoder = Decoder(layout.encoding, layout.channels, layout.tracks)
        self._resampler = Resampler(layout, self._rings) if layout.resampled else None
        self._frames = 0  # client frames given to the resampler
        self._catching_up = any(channel.catching_up for channel in self._channels)
        self.tap: Tap | None = None
        """Told all samples before they are decided; set it before the first audio."""
        self._tapped = self.resume_at
        # Kept bound: looking them up costs as much as their work for 20 ms.
        self._into_rings = self._decoder.into_rings
        self._advance = self._channels[0].segmenter.advance if layout.tracks == 1 else None

    # --- audio in -------------------------------------------------------------------------------------------------

    def feed(self, data: AudioBytes, now: float) -> Sequence[Mark]:
        """Take audio and tell what it shows.

        Args:
            data: bytes in the client's format, any length up to ``takes``, split anywhere.
            now: when they arrived.

        Returns:
            Marks in order per channel; often none.

        Raises:
            RingFull: it does not fit; nothing was taken.
        """
        if self._resampler is None:
            self._into_rings(data, self._rings)
        else:
            self._resample(self._resampler, data)
        if self.tap is not None:
            self._tell(self.tap)
        if self._advance is not None and not self._catching_up:
            told = self._advance(now)
            return NOTHING if told is None else self._channels[0].marks(told)
        return self._advance_all(now)

    def cut(self, now: float) -> list[Mark]:
        """Close every open segment at the newest decided sample (``cause="flush"``); the stream goes on."""
        return [mark for channel in self._channels for mark in channel.marks(channel.segmenter.flush(now))]

    def part(self, now: float, channels: Iterable[int]) -> list[Mark]:
        """Close open segments of ``channels`` in their newest pause (``cause="flush"``), if there is one.

        The rest stays open, for another run.
        """
        chosen = [self._channels[number] for number in channels]
        return [mark for channel in chosen for mark in channel.marks(channel.segmenter.part(now))]

    def finish(self, now: float) -> list[Mark]:
        """Hear the tail and close everything (``cause="finish"``); no more audio may follow."""
        if self._resampler is not None:
            self._resampler.push(b"", last=True)
            if self.tap is not None:
                self._tell(self.tap)
        return [mark for channel in self._channels for mark in channel.marks(channel.segmenter.finish(now))]

    # --- what the owner steers ------------------------------------------------------------------------------------

    def hold(self, channel: int, earliest: Position) -> None:
        """No boundary of ``channel`` before ``earliest``: the end of its last stable word."""
        self._channels[channel].segmenter.hold(earliest)

    def release(self, channel: int, position: Position) -> None:
        """Everything of ``channel`` before ``position`` is durable: segments that end there may be forgotten."""
        self._channels[channel].release(position)

    # --- what is there --------------------------------------------------------------------------------------------

    def read(self, channel: int, start: Position, stop: Position) -> bytes:
        """Samples of a segment, int16 of the machine's order, 16 000 Hz.

        Raises:
            ValueError: not, or no longer, held.
        """
        return self._rings[channel].read(start, stop)

    @property
    def position(self) -> Position:
        """End of the newest audio received, on every channel."""
        if self._resampler is None:
            return self._rings[0].end
        return max(self._rings[0].end, self.resume_at + self.layout.position(self._frames))

    @property
    def room(self) -> Position:
        """Samples per channel that can still be taken, in positions; 16 000 are a second."""
        room = self._rings[0].room if self._advance is not None else min(ring.room for ring in self._rings)
        if self._resampler is not None:
            room -= WITHHELD + self.position - self._rings[0].end
        return max(0, room)

    @property
    def takes(self) -> int:
        """Bytes that ``feed`` surely takes now."""
        frames = self.layout.frames_within(self.room)
        return max(0, frames * self.layout.frame_bytes - self._decoder.dangling)

    @property
    def bytes_per_second(self) -> int:
        """Bytes of the client's audio that last one second."""
        return self.layout.bytes_per_second

    @property
    def nonfinite(self) -> int:
        """Samples that were NaN or infinite and became silence."""
        return self._decoder.nonfinite

    @property
    def dangling(self) -> int:
        """Bytes at the end that are no whole frame (yet)."""
        return self._decoder.dangling

    def silence_ms(self, channel: int) -> int:
        """Audio of this run that is in no segment."""
        return self._channels[channel].segmenter.silence * 1_000 // RATE_HZ

    def loudest_discarded_dbfs(self, channel: int) -> float:
        """Loudest 100 ms outside all segments, DC apart; at least ``QUIETEST_DBFS``."""
        energy = self._channels[channel].segmenter.loudest / 32_768**2
        return max(QUIETEST_DBFS, 10 * math.log10(energy)) if energy > 0 else QUIETEST_DBFS

    # --- inside ---------------------------------------------------------------------------------------------------

    def _resample(self, resampler: Resampler, data: AudioBytes) -> None:
        size = data.nbytes if isinstance(data, memoryview) else len(data)
        frames = self._decoder.frames(size)
        if self.layout.position(frames) > self.room:
            raise RingFull(f"{frames} samples at {self.layout.rate_hz} Hz were offered, the ring has no room for them")
        resampler.push(self._decoder.into_floats(data))
        self._frames += frames

    def _tell(self, tap: Tap) -> None:
        begin, end = self._tapped, self._rings[0].end
        if end > begin:
            self._tapped = end
            for channel, ring in enumerate(self._rings):
                tap(channel, ring.read(begin, end))

    def _advance_all(self, now: float) -> list[Mark]:
        marks: list[Mark] = []
        for channel in self._channels:
            told = channel.segmenter.advance(now)
            if told is not None or self._catching_up:
                marks += channel.marks(told or ())
        if self._catching_up:
            self._catching_up = any(channel.catching_up for channel in self._channels)
        return marks
