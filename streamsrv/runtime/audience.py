"""Those who watch one interview on this node, and the order in which they are told.

A viewer that comes back names the last final it was told and is sent those stored after it, so finals must be told in
the order in which they were stored.  Sessions of one node do that by themselves.  With several nodes each hears of the
others' finals late, or not at all; so there a final is only the occasion to read on in the store: what is new there is
told, in its order, and what happened since waits behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from streamsrv import events
from streamsrv.errors import StoreUnavailable
from streamsrv.events import ViewerEvent
from streamsrv.stores.base import FinalName, PlacedFinal, TranscriptStore

if TYPE_CHECKING:
    from streamsrv.runtime.fanout import Watch

MAX_HELD: Final = 256
"""Events that may wait for the store; when it is full they are dropped, and each viewer reads the store by itself."""
PAGE: Final = 200
"""Finals read at once."""
MARGIN: Final = 16
"""Finals told last that are read again: one that was given its place before them may come to light after them, though
the store promises otherwise, when a node writes that is too old to keep the promise, or was taken for dead."""
LASTING: Final = (events.Ready, events.Configured, events.StreamOver)
"""Kept whatever is dropped: the store would not bring them."""


class Told(NamedTuple):
    """Something that happened in a stream; in none when ``stream`` is empty."""

    stream: str
    event: ViewerEvent
    place: int = 0
    """Of a final that was read from the store; else 0."""

    @property
    def stored(self) -> bool:
        """Whether it is a final that the store has."""
        return isinstance(self.event, events.Final) and self.event.durable == "store"


class Audience:
    """The viewers of one interview.

    Args:
        arranged: whether other nodes have finals too.
    """

    def __init__(self, interview: str, store: TranscriptStore, *, arranged: bool) -> None:
        self.watches: set[Watch] = set()
        self.live: set[str] = set()
        """Streams it was told of, but not that they are over."""
        self._interview = interview
        self._store = store
        self._arranged = arranged
        self._held: deque[Told] = deque()
        self._recent: list[PlacedFinal] = []
        """Finals told last, in the order of the store."""
        self._due = False
        self._covered = 0
        """Of those held, how many happened before the store was asked."""
        self._arranging: asyncio.Task[None] | None = None

    def tell(self, told: Told) -> None:
        """Something happened; never waits."""
        if isinstance(told.event, events.StreamOver):
            self.live.discard(told.stream)
        else:
            self.live.add(told.stream)
        if self._arranging is None and not (self._arranged and told.stored):
            return self._put(told)
        if len(self._held) >= MAX_HELD:
            self._fall_behind()
        self._held.append(told)
        self._arrange()

    def read_on(self) -> None:
        """There may be finals that nobody told of."""
        self._due = True
        self._arrange()

    def close(self) -> None:
        if self._arranging is not None:
            self._arranging.cancel()

    def _put(self, told: Told) -> None:
        for watch in self.watches:
            watch.put(told)

    def _fall_behind(self) -> None:
        self._held = deque(told for told in self._held if isinstance(told.event, LASTING))
        self._covered = 0
        for watch in self.watches:
            watch.fall_behind()

    # --- the order of the store ---------------------------------------------------------------------------------

    def _arrange(self) -> None:
        if self._arranging is None:
            self._arranging = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        try:
            while self._held or self._due:
                self._due, self._covered = False, len(self._held)
                try:
                    for one in await self._new():
                        self._put(Told(one.stream, one.final, one.place))
                except StoreUnavailable:
                    self._fall_behind()  # each waits for the store, and reads it then
                    self._covered = len(self._held)
                for _ in range(self._covered):
                    told = self._held.popleft()
                    if not told.stored:
                        self._put(told)
        finally:
            self._arranging = None

    async def _new(self) -> list[PlacedFinal]:
        """What was stored since this was asked last; nothing as long as all who watch have yet to read the store."""
        settled = [watch.settled for watch in self.watches if watch.has_read]
        if not settled:
            return []
        known = {_name(one) for one in self._recent}
        place = self._recent[0].place if len(self._recent) == MARGIN else min(settled)
        found: list[PlacedFinal] = []
        while True:
            page = await self._store.finals_since(self._interview, place, limit=PAGE)
            found += page
            if len(page) < PAGE:
                break
            place = page[-1].place
        new = [one for one in found if _name(one) not in known]
        self._recent = sorted([*self._recent, *new], key=lambda one: one.place)[-MARGIN:]
        return new


def _name(one: PlacedFinal) -> FinalName:
    return FinalName(one.stream, one.final.channel, one.final.segment)
