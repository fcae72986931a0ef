"""Finals that have their places and cannot be read yet, of all nodes.

A batch gets its places before it is inserted, and readers go on behind the last place they saw: one that saw place 12
before 10 and 11 were there would miss these for ever.  So the update that gives a batch its places also *announces* it:
``writing`` in the counter's document has a field per batch under way, with ``after``, a place before all of its own,
and ``of``, the interviews it has finals of, ``None`` when they are many.  A writer's next batch takes the announcement
away with its own, so that a final waits for no more trips than without; a writer that falls idle does it behind the
last answer.  A reader looks at the counter first, waits until what it finds announced there is over, and reads no
further than the counter had come.

Writer and reader agree by time alone: a batch is inserted within ``timeout_s`` or not at all, and an announcement that
stays for ``GIVEN_UP`` times as long is that of a writer that died.  Time counts on the reader's own clock, and only
while it can read: a database that hung hangs on to what was asked of it.  When a writer does not know what became of
its batch, the announcement stays until it has stored the same finals once more.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import pymongo
from pymongo.errors import PyMongoError

from streamsrv import telemetry
from streamsrv.errors import StoreUnavailable
from streamsrv.stores.mongo import failures, places
from streamsrv.stores.mongo.batches import Batches
from streamsrv.stores.mongo.documents import Rooms

GIVEN_UP: Final = 3
"""Times ``timeout_s`` after which an announcement that is still there is nobody's."""
PATIENCE_S: Final = 0.25
"""How long a reader waits for batches under way before it makes do with what lies before them."""
POLL_S: Final = 0.005
WATCH_S: Final = 5.0
"""Pause between two looks while nobody reads."""
MAX_NAMED: Final = 32
"""Interviews a batch names; with more it concerns all."""
MAX_LOOKS: Final = 10_000
"""Readers that wait for a look; more are refused with ``StoreUnavailable``."""
MAX_FORGOTTEN: Final = 16
"""Own announcements remembered to be taken away; readers give the others up."""
MAX_FAILED: Final = 64
"""Own announcements that failed and are known again should a database that hung make them after all."""

T = TypeVar("T")
Look: TypeAlias = tuple[int, dict[str, Any]]
"""The last place given, and the batches under way, by name."""
log = telemetry.logger("mongo")


class Seen(NamedTuple):
    """An announcement, as it is known from earlier looks."""

    age_s: float
    """For how long it was seen."""
    after: int
    """The last place there was when it was not there yet."""


@dataclass(slots=True)
class View:
    """What one reader found under way when it came."""

    last: int
    """The last place given by then."""
    open: dict[str, int]
    """Batches that concern it, and are not over as far as it knows: a place before all of theirs, by name."""

    @property
    def upto(self) -> int:
        """The place up to which nothing can come to light any more."""
        return min([self.last, *self.open.values()])


class Writing:
    """Announces the batches of one store, and looks for those of all.

    Args:
        timeout_s: seconds within which a batch is inserted, or not at all; the same on all nodes, about.
    """

    def __init__(self, rooms: Rooms, *, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rooms = rooms
        self._timeout_s = timeout_s
        self._clock = clock
        self._last = 0
        """The last place this store knows to be given."""
        self._over: list[str] = []
        """Own announcements that mean nothing any more."""
        self._failed: deque[str] = deque(maxlen=MAX_FAILED)
        """Own announcements that failed, as far as is known."""
        self._unknown: dict[str, set[str]] = {}
        """Own batches of which nobody knows what became, and the keys of their finals that were not stored since."""
        self._seen: dict[str, Seen] = {}
        self._looked = clock()
        self._looked_to = 0
        """The last place there was when it looked."""
        self._looks: Batches[None, Look] = Batches(self._look_once, most=MAX_LOOKS)
        self._next_look: asyncio.Task[Look] | None = None
        self._stopped = False

    # --- the writer -------------------------------------------------------------------------------------------------

    async def insert(self, interviews: Collection[str], keys: Collection[str], do: Callable[[int], Awaitable[T]]) -> T:
        """Let ``do`` insert a batch at places of its own, from the one it is told; one batch at a time.

        Args:
            interviews: those it has finals of.
            keys: of its finals, one place for each.
        """
        name = secrets.token_hex(8)
        with pymongo.timeout(self._timeout_s):
            try:
                first = await self._announce(name, interviews, len(keys))
            except BaseException:
                self._failed.append(name)  # nothing was inserted, but it may be announced, and even later than now
                self._forget(name)
                raise
            try:
                done = await do(first)
            except BaseException:
                self._unknown[name] = set(keys)
                if len(self._unknown) > MAX_FORGOTTEN:
                    del self._unknown[next(iter(self._unknown))]
                raise
        self._stored(name, keys)
        return done

    async def _announce(self, name: str, interviews: Collection[str], count: int) -> int:
        over = list(self._over)
        of = sorted(interviews) if len(interviews) <= MAX_NAMED else None
        change: dict[str, Any] = {"$set": {f"writing.{name}": {"after": self._last, "of": of}}}
        if over:
            change["$unset"] = _fields(over)
        first = await places.take(self._rooms, count, change)
        self._last = max(self._last, first + count - 1)
        self._remove(over)
        return first

    def _stored(self, name: str, keys: Collection[str]) -> None:
        self._forget(name)
        for other, missing in list(self._unknown.items()):
            missing.difference_update(keys)
            if not missing:  # whatever comes of it now finds its finals there
                del self._unknown[other]
                self._forget(other)

    def _forget(self, name: str) -> None:
        self._over = [*self._over, name][-MAX_FORGOTTEN:]

    def _remove(self, names: Iterable[str]) -> None:
        gone = set(names)
        self._over = [name for name in self._over if name not in gone]

    async def tidy(self) -> None:
        """Take away what is announced and over: no batch follows that would do it."""
        over = list(self._over)
        if over:
            await self._take_away(over)
            self._remove(over)

    async def _take_away(self, names: Iterable[str]) -> None:
        await self._rooms.meta.update_one(places.COUNTER, {"$unset": _fields(names)})

    # --- the reader -------------------------------------------------------------------------------------------------

    async def view(self, interview: str) -> View:
        """See what is under way for an interview."""
        last, found = await self._looks.put(None)
        concerned = [name for name, batch in found.items() if _concerns(batch, interview)]
        seen = {name: one.after for name, one in self._seen.items()}
        return View(last, {name: max(_after(found[name]), seen.get(name, 0)) for name in concerned})

    async def _look_once(self, readers: Sequence[None]) -> list[Look]:
        """One look for all who came before it began."""
        return [await self._look()] * len(readers)

    async def settle(self, view: View, within_s: float = PATIENCE_S) -> None:
        """Wait until what it found is over, or for so long.

        Raises:
            StoreUnavailable: the store is being closed.
        """
        end = self._clock() + within_s
        while view.open and self._clock() < end:
            if self._next_look is None or self._next_look.done():
                self._next_look = asyncio.create_task(self._pause_and_look())
            _, found = await asyncio.shield(self._next_look)
            view.open = {name: before for name, before in view.open.items() if name in found}

    async def _pause_and_look(self) -> Look:
        """One look for all who wait."""
        if self._stopped:
            raise StoreUnavailable("the store is closed")
        await asyncio.sleep(POLL_S)
        return await self._look()

    async def _look(self) -> Look:
        """Those of writers that died, and own ones that were made late, are taken away."""
        found = await self._rooms.meta.find_one(places.COUNTER) or {}
        last = int(found.get("last", 0))
        self._last = max(self._last, last)
        writing: dict[str, Any] = found.get("writing", {})
        gone = writing.keys() & set(self._failed)
        writing = {name: batch for name, batch in writing.items() if name not in gone and name not in self._over}
        if last >= self._looked_to:  # else another look, which was asked later, was answered before
            self._see(writing, last)
        dead = {name for name, seen in self._seen.items() if seen.age_s >= GIVEN_UP * self._timeout_s}
        if dead:
            log.warning("mongo.writer_died", batches=len(dead))
        if dead | gone:
            await self._take_away(dead | gone)
        return last, {name: batch for name, batch in writing.items() if name not in dead}

    def _see(self, names: Iterable[str], last: int) -> None:
        now = self._clock()
        passed_s = min(now - self._looked, self._timeout_s)
        new = Seen(-passed_s, self._looked_to)
        known = {name: self._seen.get(name, new) for name in names}
        self._seen = {name: Seen(seen.age_s + passed_s, seen.after) for name, seen in known.items()}
        self._looked, self._looked_to = now, last

    async def watch(self) -> None:
        """Look now and then, until cancelled: what a dead writer left makes no reader wait that comes much later."""
        while True:
            try:
                await self._look()
                await self.tidy()
            except PyMongoError as error:
                log.debug("mongo.writing_unseen", error=type(error).__name__)
            failures.heed_cancellation()
            await asyncio.sleep(min(self._timeout_s, WATCH_S))

    def stop(self) -> None:
        """Let nobody wait any longer."""
        self._stopped = True


def _fields(names: Iterable[str]) -> dict[str, str]:
    return {f"writing.{name}": "" for name in names}


def _concerns(batch: Any, interview: str) -> bool:
    """Whether it may have finals of the interview; what is not understood is waited for, and given up."""
    of = batch.get("of") if isinstance(batch, Mapping) else None
    return of is None or interview in of


def _after(batch: Any) -> int:
    return int(batch.get("after", 0)) if isinstance(batch, Mapping) else 0
