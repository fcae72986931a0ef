"""What goes up: audio, each flush at its place, ``finish`` at last; and what of it must be kept.

Pure: the connection asks ``take`` what to send next, acks and events are told to it.  A *place* counts bytes since the
stream began.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from streamsrv.client.backlog import SAMPLE_BYTES, Backlog
from streamsrv.client.messages import Ack, AnyMessage, Ready
from streamsrv.client.progress import Stored
from streamsrv.client.refusals import AudioForgotten
from streamsrv.commands import Options

MARGIN_S = 1.0
"""Kept behind the newest ack: the server may ask for up to 0.6 s before it."""
LENT_MARGIN_S = 5.0
"""Kept behind the last stored final when audio is let go without an ack: with less in front of it, a resumed detector
may place its first boundary elsewhere."""
SLACK_S = 0.005
"""The server counts at a rate of its own; and a piece of a sample at the end is no sample."""
MOST_FLUSHES = 64
"""Flushes that wait for their ack; when there are so many, one more must wait for the oldest."""


class Supply:
    """The upward half of a stream, across its connections.

    Args:
        options: decides how many bytes a sample and a second have.
        backlog_s: seconds of audio kept until acknowledged; when it is full ``append`` takes nothing.
    """

    def __init__(self, options: Options, backlog_s: float) -> None:
        self._rate = options.sample_rate
        self._frame = SAMPLE_BYTES[options.encoding] * options.channels
        self._backlog = Backlog(int(backlog_s * self._rate) * self._frame, options.encoding)
        self._flushes: deque[int] = deque()  # places of the flushes without their ack
        self._flushes_sent = 0  # how many of them this connection has seen
        self._acked = 0  # place
        self._cursor = 0  # place of the next byte for this connection
        self._lent_to = 0  # place up to which audio was let go without an ack, because it was in stored finals
        self._stored = Stored()
        self.finishing = self.finish_sent = False

    @property
    def unacknowledged_s(self) -> float:
        """Seconds of audio that are not known to be stored."""
        return max(0, self._backlog.stop - max(self._acked, self._lent_to)) / (self._rate * self._frame)

    def append(self, data: memoryview) -> int:
        """Keep as many bytes of ``data`` as there is room for; returns how many."""
        return self._backlog.append(data)

    def flush(self) -> bool:
        """Ask for the finals of what was given so far; False when too many flushes wait for their answer."""
        if len(self._flushes) >= MOST_FLUSHES:
            return False
        self._flushes.append(self._backlog.stop)
        return True

    def begin(self, ready: Ready) -> None:
        """Go on with a new connection where its ``ready`` says.

        Raises:
            AudioForgotten: that is before what is kept, or behind what was given.
        """
        place, kept = ready.resume_at * self._frame, self._backlog
        if place > kept.stop or (place < kept.start and kept.start > self._lent_to):
            raise AudioForgotten(
                f"the server asks for sample {ready.resume_at}; samples {kept.start // self._frame} to "
                f"{kept.stop // self._frame} are kept"
            )
        self._cursor, self._flushes_sent, self.finish_sent, self._stored = place, 0, False, Stored()

    def take(self, most: int) -> bytes | Literal["flush", "finish"] | None:
        """What to send next: at most ``most`` bytes of audio, or a command; ``None``: nothing for now."""
        flush_at = self._flushes[self._flushes_sent] if self._flushes_sent < len(self._flushes) else None
        if flush_at is not None and flush_at <= self._cursor:
            self._flushes_sent += 1
            return "flush"
        if self._cursor < self._backlog.stop:
            data = self._backlog.read(self._cursor, most if flush_at is None else min(most, flush_at - self._cursor))
            self._cursor += len(data)
            return data
        if self.finishing and not self.finish_sent:
            self.finish_sent = True
            return "finish"
        return None

    def heard_all(self, samples: int) -> bool:
        """Whether a stream that ended after so many samples holds all that was given, and no more is to come."""
        slack = self._bytes(SLACK_S)
        return self.finishing and samples * self._frame + slack >= self._backlog.stop

    def acknowledge(self, ack: Ack) -> bool:
        """Note an ack; whether it moved forward."""
        if ack.flushed and self._flushes_sent:
            self._flushes.popleft()
            self._flushes_sent -= 1
        place = ack.samples * self._frame
        moved = place > self._acked
        self._acked = max(self._acked, place)
        return moved

    def note(self, event: AnyMessage) -> None:
        """Take an event of this connection into account."""
        self._stored.note(event)

    def forget(self) -> bool:
        """Let go of what the server has for good; whether that freed anything."""
        freed = self._backlog.forget(self._acked - self._bytes(MARGIN_S))
        if self._backlog.room == 0:
            stored = self._stored.to_ms * self._rate // 1000 * self._frame
            lent = self._backlog.forget(stored - self._bytes(LENT_MARGIN_S))
            self._lent_to = self._backlog.start if lent else self._lent_to
            freed += lent
        return freed > 0

    def _bytes(self, seconds: float) -> int:
        return int(seconds * self._rate) * self._frame
