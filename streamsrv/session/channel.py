"""One channel of a session: its open segment, the segments waiting for their finals, and what it may acknowledge."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from streamsrv.events import Final
from streamsrv.facts import Answer, Cause, ChannelStart, Position, Word
from streamsrv.session.agreement import Agreement
from streamsrv.session.effects import Hear
from streamsrv.session.transcript import join
from streamsrv.session.trimming import UNTRIMMED, Trim


@dataclass(slots=True, kw_only=True)
class Segment:
    """What becomes one final."""

    number: int
    utterance: int
    start: Position
    agreement: Agreement
    asked: Position
    """End of the newest span an engine was asked about."""
    asked_at: float = -1.0
    trim: Trim = field(default_factory=lambda: UNTRIMMED)
    """The last one with which an answer was believed."""
    said: tuple[str, int] = ("", 0)
    """Text and stable length of the last partial."""
    known: tuple[Asked, Answer] | None = None
    """The last partial's question and answer, when that would also be the answer to a final."""
    paused_at: Position = -1
    """Where speech ended when a partial was last asked for because the segment may end there."""
    stop: Position = 0
    speech_at: float = 0.0
    ended_at: float = 0.0
    cause: Cause = "vad"
    over: bool = True
    final: Final | None = None
    handed: bool = False
    """Whether the final was given to the store."""


@dataclass(slots=True, kw_only=True)
class Asked:
    """A question the engine has not answered yet."""

    channel: Channel
    segment: Segment
    stop: Position
    arrived: float
    """Arrival of the newest sample it covers, monotonic seconds."""
    final: bool
    trim: Trim
    """How the question leaves out the segment's beginning."""
    kept: bool = False
    """It begins where the one before did, whatever its length: a later beginning was doubted."""
    picked: bool = False
    """The engine is hearing it: it covers what it covers."""
    concludes: bool = False
    """A partial whose answer shall be the final."""


@dataclass(slots=True, eq=False)
class Channel:
    """Segments of one channel, in order.  Pure bookkeeping; the machine decides."""

    number: int
    agreement_needed: int
    start: ChannelStart
    position: Position = 0
    arrived: float = 0.0
    """When ``position`` last moved, monotonic seconds."""
    quiet: int = 0
    """Samples without speech before ``position``, while a segment is open."""
    restart: Position = 0
    """Newest restart point the front reported."""
    safe: Position = 0
    """Newest restart point with every earlier final stored."""
    noted: Position = 0
    """Restart point the store knows."""
    kept_to: Position = 0
    next_segment: int = 0
    next_utterance: int = 0
    open: Segment | None = None
    waiting: deque[Segment] = field(default_factory=deque)
    """Ended, not yet stored; oldest first.  Bounded by the ring: their audio is all in it."""
    last_word_stop: Position = 0

    def __post_init__(self) -> None:
        self.position = self.restart = self.safe = self.noted = self.start.restart
        self.kept_to = self.start.kept_to
        self.next_segment, self.next_utterance = self.start.next_segment, self.start.next_utterance

    def begin(self, start: Position, *, utterance: int) -> Segment:
        """Open the next segment."""
        self.open = Segment(
            number=self.next_segment,
            utterance=utterance,
            start=start,
            asked=start,
            agreement=Agreement(self.agreement_needed),
        )
        self.next_segment += 1
        self.quiet = 0
        return self.open

    def end(self, *, stop: Position, speech_at: float, now: float, cause: Cause, over: bool) -> Segment:
        """Close the open segment; it waits for its final."""
        segment = self.open
        if segment is None:
            raise ValueError(f"channel {self.number}: a segment ended at {stop} that never began")
        segment.stop, segment.speech_at, segment.ended_at = stop, speech_at, now
        segment.cause, segment.over = cause, over
        self.waiting.append(segment)
        self.open = None
        return segment

    def stored(self, number: int) -> Segment | None:
        """The final of this segment is durable; ``None`` when it is not the one that is due."""
        if not self.waiting or self.waiting[0].number != number:
            return None
        segment = self.waiting.popleft()
        self.kept_to = segment.stop
        return segment

    def acknowledge(self) -> None:
        """Move ``safe`` to the newest restart point when no unstored segment begins before it."""
        if self.settled >= self.restart:
            self.safe = max(self.safe, self.restart)

    @property
    def promises(self) -> bool:
        """Whether the open segment has stable words.  Before there are any, what was heard may be a noise."""
        return self.open is not None and bool(self.open.agreement.stable)

    @property
    def settled(self) -> Position:
        """Everything before is in stored finals, or was silence."""
        oldest = self.waiting[0] if self.waiting else self.open
        return max(self.restart, self.kept_to) if oldest is None else oldest.start


def hear(asked: Asked, *, request: int, deadline: float) -> Hear:
    """The question as an effect."""
    segment = asked.segment
    return Hear(
        request=request,
        channel=asked.channel.number,
        segment=segment.number,
        start=asked.trim.begins(segment.start),
        stop=asked.stop,
        final=asked.final,
        prefix=segment.agreement.stable[asked.trim.words :],
        deadline=deadline,
    )


def whole(asked: Asked, answer: Answer) -> tuple[Word, ...]:
    """The answer as a hypothesis of the whole segment: what was left out of the question is put before it."""
    return asked.segment.agreement.stable[: asked.trim.words] + answer.words


def conclude(asked: Asked, answer: Answer, now: float) -> Final:
    """The segment's final from the engine's last answer."""
    channel, segment = asked.channel, asked.segment
    words: tuple[Word, ...] = segment.agreement.conclude(whole(asked, answer))
    return Final(
        channel=channel.number,
        utterance=segment.utterance,
        segment=segment.number,
        start=segment.start,
        stop=segment.stop,
        text=join(words),
        words=words,
        language=answer.language,
        cause=segment.cause,
        endpoint=segment.over,
        engine=answer.engine,
        failed=answer.failed,
        latency_ms=_ms(now - segment.speech_at),
        endpoint_ms=_ms(segment.ended_at - segment.speech_at),
    )


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))
