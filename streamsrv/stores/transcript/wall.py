"""Wall time of a position, from a stream's anchors."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from streamsrv.facts import RATE_HZ, Position
from streamsrv.stores.base import Stream


class Wall:
    """Where the positions of one stream lie in UTC.

    An anchor holds from its position up to the next; the first one also for what is before it.  A stream without
    anchors is taken to begin when it was recorded.
    """

    def __init__(self, stream: Stream) -> None:
        anchors = sorted((anchor.position, anchor.utc_ms) for anchor in stream.anchors) or [(0, stream.started_ms)]
        self._positions = [position for position, _ in anchors]
        self._utc_ms = [utc_ms for _, utc_ms in anchors]

    @property
    def zero_ms(self) -> int:
        """UTC of the first anchor."""
        return self._utc_ms[0]

    def start_ms(self, position: Position) -> int:
        """UTC, in ms, at which the sample at ``position`` begins."""
        return self._at(position, position)

    def stop_ms(self, position: Position) -> int:
        """UTC, in ms, of an exclusive end: the pause in front of an anchor right there does not count."""
        return self._at(position, position - 1)

    def _at(self, position: Position, belongs_to: Position) -> int:
        index = max(0, bisect_right(self._positions, belongs_to) - 1)
        return self._utc_ms[index] + (position - self._positions[index]) * 1000 // RATE_HZ


def interview_zero_ms(walls: Iterable[Wall]) -> int:
    """The earliest first anchor; 0 when there is no stream."""
    return min((wall.zero_ms for wall in walls), default=0)
