"""Files on a live engine: several segments are heard at once, behind live speech.

Each channel has several lanes, and a segment's number names its lane: the same file is heard in the same way each time,
whatever the machine does meanwhile, and a voice that a lane has learnt is always this channel's.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from streamsrv.engines.base import LiveEngine
from streamsrv.events import Final
from streamsrv.facts import Position
from streamsrv.runtime.ear import Answered, Read, Troubled
from streamsrv.runtime.live import LiveEar
from streamsrv.session.effects import Hear

MOST_LANES = 8
"""Segments of one file heard at once at most; the ring rarely holds more."""


class FileEar:
    """The ear of one file on a live engine.

    Args:
        lanes: segments of one channel heard at once; the machine's cores when omitted.

    The others are those of ``LiveEar``, which does the work.

    Raises:
        UnsupportedLanguage: the engine does not know ``language``.
    """

    def __init__(
        self,
        engine: LiveEngine,
        *,
        channels: int,
        language: str | None,
        read: Read,
        answered: Answered,
        troubled: Troubled,
        replayed: Callable[[], None] = lambda: None,
        lanes: int | None = None,
    ) -> None:
        self._lanes = min(lanes or len(os.sched_getaffinity(0)), MOST_LANES)
        self._read = read
        self._ear = LiveEar(
            engine,
            channels=channels * self._lanes,
            language=language,
            read=self._of_lane,
            answered=answered,
            troubled=troubled,
            replayed=replayed,
            background=True,
        )

    def hear(self, question: Hear) -> None:
        lane = question.channel * self._lanes + question.segment % self._lanes
        self._ear.hear(msgspec.structs.replace(question, channel=lane))

    def forget(self, request: int) -> None:
        self._ear.forget(request)

    def ended(self, final: Final) -> None:
        self._ear.ended(final)

    def close(self) -> None:
        self._ear.close()

    def _of_lane(self, lane: int, start: Position, stop: Position) -> bytes:
        return self._read(lane // self._lanes, start, stop)
