"""One channel of the front: its ring, its segmenter, and what of a resumed stream was kept already."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from streamsrv._native.ring import RingBuffer
from streamsrv._native.segmenter import ADVANCED, BEGAN, Segmenter
from streamsrv._native.told import Told
from streamsrv.audio.vad import FRAME, Vad
from streamsrv.commands import Options
from streamsrv.facts import RATE_HZ, Advanced, Cause, ChannelStart, Mark, Position, SpeechBegan, SpeechEnded

SAMPLES_PER_MS = RATE_HZ // 1_000
NO_GUARD: Position = (1 << 63) - 1
"""What a channel keeps when none of its segments is waiting for ``release``."""


class Channel:
    """Turns the segmenter's tuples into marks and holds the ring for segments that are not durable yet.

    What an earlier run kept (everything before ``kept_to``) is not told again: its segments vanish, and the one that
    reaches over ``kept_to`` begins there.

    Args:
        index: the channel's number in marks.
        ring: its samples.
        vad: its detector.
        options: segmenter knobs.
        start: where it begins.
    """

    __slots__ = ("_clipped", "_held", "_index", "_kept_to", "_released", "ring", "segmenter")

    def __init__(self, index: int, ring: RingBuffer, vad: Vad, options: Options, start: ChannelStart) -> None:
        self._index = index
        self.ring = ring
        self.segmenter = Segmenter(
            ring,
            vad.decide,
            vad.reset,
            preroll=options.preroll_ms * SAMPLES_PER_MS,
            hangover=frames_of(options.hangover_ms),
            shortest=frames_of(options.shortest_ms),
            longest=options.longest_ms * SAMPLES_PER_MS,
            most_gain=vad.most_gain,
            begin=start.restart,
        )
        # Starts of segments that may not be forgotten, oldest first, and where each ended (None: still open).
        # Bounded by the ring: it holds them all.
        self._held: deque[tuple[Position, Position | None]] = deque()
        self._released = self._kept_to = start.kept_to
        # A segment is open that began before kept_to and was not told: it may vanish, or begin at kept_to.
        self._clipped = False
        self.segmenter.hold(start.kept_to)

    @property
    def catching_up(self) -> bool:
        """Whether a segment of the earlier run may still have to be told from ``kept_to`` on."""
        return self._clipped or self.segmenter.position < self._kept_to

    def marks(self, told: Sequence[Told]) -> list[Mark]:
        """Marks for what the segmenter told."""
        marks: list[Mark] = []
        for fact in told:
            if fact[0] == ADVANCED:
                marks.append(Advanced(channel=self._index, position=fact[1], restart=fact[2], quiet=fact[3]))
            elif fact[0] == BEGAN:
                self._begin(marks, fact[1], fact[2])
            else:
                self._end(marks, *fact[1:])
        if self._clipped and self.segmenter.position > self._kept_to:
            self._clipped = False
            marks.append(self._began(self._kept_to, self.segmenter.position))
        # Only now: the same facts may tell a further segment, whose samples the segmenter guards until it is held here.
        if self._held and (stop := self._held[0][1]) is not None and stop <= self._kept_to:
            self.release(self._kept_to)
        return marks

    def release(self, position: Position) -> None:
        """Everything before ``position`` is durable: the ring need not keep it."""
        self._released = max(self._released, position)
        held = self._held
        while held and (stop := held[0][1]) is not None and stop <= self._released:
            held.popleft()
        self.segmenter.keep_from(held[0][0] if held else NO_GUARD)

    def _begin(self, marks: list[Mark], start: Position, position: Position) -> None:
        self._held.append((start, None))
        if start < self._kept_to:
            self._clipped = True
        else:
            marks.append(self._began(start, position))

    def _began(self, start: Position, position: Position) -> SpeechBegan:
        return SpeechBegan(channel=self._index, start=start, position=position)

    def _end(
        self,
        marks: list[Mark],
        stop: Position,
        speech_stop: Position,
        speech_at: float,
        cause: Cause,
        over: bool,
        position: Position,
    ) -> None:
        self._held[-1] = (self._held[-1][0], stop)
        if not over:
            self._held.append((stop, None))
        if stop <= self._kept_to:
            # All of it is kept.  When it was told already (from kept_to on) it is cut exactly there: it just goes on.
            self._clipped = self._clipped and not over
            return
        if self._clipped:
            self._clipped = False
            marks.append(self._began(self._kept_to, position))
        marks.append(
            SpeechEnded(
                channel=self._index,
                stop=stop,
                speech_stop=max(speech_stop, min(self._kept_to, stop)),
                speech_at=speech_at,
                cause=cause,
                over=over,
                position=position,
            )
        )


def frames_of(duration_ms: int) -> int:
    """Frames of 20 ms that cover a duration, at least 1."""
    return max(1, -(-duration_ms * SAMPLES_PER_MS // FRAME))
