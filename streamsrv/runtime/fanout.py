"""An interview as its viewers on this node see it: stored finals first, then what happens, nothing lost, nothing twice.

A viewer subscribes first and reads the store then; what it was sent is not sent again.  A final is stored before it is
told here, so whatever a viewer misses live it finds in the store; what this node has in its spool comes into the store,
and reading goes on until it has.  Falling behind is the same as coming late, and so is missing what another node told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from streamsrv import events, telemetry
from streamsrv.errors import Draining, Full, StoreUnavailable, StreamsrvError
from streamsrv.events import AnyEvent, ViewerEvent
from streamsrv.runtime.audience import LASTING, MARGIN, Audience
from streamsrv.runtime.audience import Told as Told
from streamsrv.shared_state.base import SharedState
from streamsrv.shared_state.memory import MemoryState
from streamsrv.stores.base import FinalName, PlacedFinal, StreamKey, TranscriptStore

MAX_WAITING = 256
"""Events waiting for one viewer; a newer partial takes the place of the one of its segment.  When it is full they are
dropped, and the viewer reads the finals among them from the store: it loses partials, never finals, and hears late, but
does hear, that a stream began or ended."""
MAX_NOTES = 8
"""Words to one viewer alone that may wait; more are dropped."""
PAGE = 200
"""Finals read from the store at once."""
RECENT = 64
"""Finals sent last; who fell behind reads on from the oldest of them, because finals of two streams may be told in
another order than they were stored in."""
STORE_PAUSE_S = 1.0
"""Pause of a viewer while the store cannot be read."""
SPOOL_PAUSE_S = 0.1
"""Pause of a viewer while the store lacks finals that are in the spool."""
RETRY_AFTER_S = 5.0

_PRIVATE = frozenset({events.Ack, events.Warned, events.GoAway, events.Failed, events.Closed})
"""Between the server and the speaker alone."""


def _same_segment(one: Told, other: Told) -> bool:
    """Whether both are partials of the same segment."""
    return (
        isinstance(one.event, events.Partial)
        and isinstance(other.event, events.Partial)
        and (one.stream, one.event.channel, one.event.segment)
        == (other.stream, other.event.channel, other.event.segment)
    )


class Watch:
    """One viewer's way through an interview.

    Args:
        store: where finals are read.
        after: the last final the viewer knows; one that is not stored counts as none.
        unstored: whether finals of an interview were told that the store does not have yet.
    """

    def __init__(
        self,
        store: TranscriptStore,
        interview: str,
        after: FinalName | None,
        unstored: Callable[[str], bool] = lambda interview: False,
    ) -> None:
        self.interview = interview
        self.catch_ups = 0
        """Times it fell behind and read the store again."""
        self.has_read = False
        """Whether it has read the store to its end."""
        self._from = 0
        """Place of the final it knew when it came."""
        self._places: deque[int] = deque([0], maxlen=MARGIN)
        """Of the finals it read last."""
        self._store = store
        self._after = after
        self._unstored = unstored
        self._queue: deque[Told] = deque()
        self._notes: deque[Told] = deque()
        self._page: deque[PlacedFinal] = deque()
        self._behind = False
        """Events were dropped; the store must be read once more."""
        self._reading = True
        self._place: int | None = None
        """Up to where the store was read; ``None``: not yet known."""
        self._sent: dict[tuple[str, int], int] = {}
        """Last segment sent, per stream and channel: as many as the interview has.  Of those in the store only."""
        self._unsure: dict[FinalName, events.Final] = {}
        """Finals that were sent from a spool: another server may hear the segment again, and then its final counts.  As
        many as spools hold."""
        self._recent: deque[FinalName] = deque(maxlen=RECENT)
        self._over: StreamsrvError | None = None
        self._at_once = False
        self._wake = asyncio.Event()

    # --- what happens -------------------------------------------------------------------------------------------

    def put(self, told: Told) -> None:
        """Take an event; never waits."""
        if self._over is not None or (isinstance(told.event, events.Partial) and self._replace(told)):
            return
        if len(self._queue) >= MAX_WAITING:
            self.fall_behind()
        if len(self._queue) < MAX_WAITING and (not self._behind or isinstance(told.event, LASTING)):
            self._queue.append(told)
        self._wake.set()

    def fall_behind(self) -> None:
        """Drop what waits, and read the store again."""
        if not self._behind:
            self._behind = True
            self.catch_ups += 1
            self._queue = deque(old for old in self._queue if isinstance(old.event, LASTING))
            self._wake.set()

    def note(self, event: AnyEvent) -> None:
        """Tell this viewer alone, before anything else."""
        if len(self._notes) < MAX_NOTES:
            self._notes.append(Told("", event))
            self._wake.set()

    def dismiss(self, error: StreamsrvError, *, at_once: bool) -> None:
        """End it, at once or when everything that waits was sent."""
        self._over = self._over or error
        self._at_once = self._at_once or at_once
        self._wake.set()

    def _replace(self, told: Told) -> bool:
        for at in range(len(self._queue) - 1, -1, -1):
            if _same_segment(self._queue[at], told):
                self._queue[at] = told
                return True
        return False

    # --- what the viewer is sent --------------------------------------------------------------------------------

    async def next(self, within_s: float | None = None) -> Told | None:
        """The next event; ``None`` when nothing happened for ``within_s`` seconds.  May be cancelled, and called again.

        Raises:
            StreamsrvError: it was dismissed, with this error.
        """
        while True:
            if self._over is not None and self._at_once:
                raise self._over
            if self._notes:
                return self._notes.popleft()
            if self._page:
                told = Told(self._page[0].stream, self._page.popleft().final)
            elif self._reading or self._behind:
                await self._read()
                continue
            elif self._queue:
                told = self._queue.popleft()
            elif self._over is not None:
                raise self._over
            elif await self._woken(within_s):
                continue
            else:
                return None
            if self._is_new(told):
                return told

    async def _woken(self, within_s: float | None) -> bool:
        self._wake.clear()
        try:
            async with asyncio.timeout(within_s):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    async def _read(self) -> None:
        """Read the next page; with the last one, what happened meanwhile is in the queue."""
        if not self._reading:
            self._behind = False  # from here on the queue takes all that follows
            self._reading, self._place = True, None
        try:
            if self._place is None:
                self._place = await self._begin()
            unstored = self._unstored(self.interview)  # before reading: what is stored meanwhile is found
            page = await self._store.finals_since(self.interview, self._place, limit=PAGE)
            if unstored and not page:  # told while it was not looking, and only in the spool so far
                await asyncio.sleep(SPOOL_PAUSE_S)
                return
        except StoreUnavailable:
            await asyncio.sleep(STORE_PAUSE_S)
            return
        self._page.extend(page)
        self._places.extend(one.place for one in page)
        self._reading = bool(page)
        self.has_read = self.has_read or not page
        self._place = page[-1].place if page else None

    async def _begin(self) -> int:
        """The place from which the store must be read."""
        if len(self._recent) == self._recent.maxlen:
            return await self._store.place_of(self.interview, self._recent[0])
        if self._after is None:
            return 0
        place = await self._store.place_of(self.interview, self._after)
        if place:
            self._sent.setdefault((self._after.stream, self._after.channel), self._after.segment)
            self._from = place
        return place

    @property
    def settled(self) -> int:
        """Place up to which nothing may come to light any more that it was not told."""
        return max(self._from, self._places[0])

    def _is_new(self, told: Told) -> bool:
        event = told.event
        if told.place and told.place <= self._from:
            return False
        if not isinstance(event, events.Final | events.Partial):
            return True
        track = (told.stream, event.channel)
        if event.segment <= self._sent.get(track, -1):
            return False
        return isinstance(event, events.Partial) or self._is_new_final(told.stream, event)

    def _is_new_final(self, stream: str, final: events.Final) -> bool:
        name = FinalName(stream, final.channel, final.segment)
        before = self._unsure.pop(name, None)
        if final.durable == "store":
            self._sent[stream, final.channel] = final.segment
        else:
            self._unsure[name] = final
        self._recent.append(name)
        return before is None or (before.start, before.stop, before.text) != (final.start, final.stop, final.text)


class Fanout:
    """All who watch on this node.

    Args:
        store: where viewers read what they missed.
        metrics: counts viewers.
        most: viewers at once; one more is refused.
        unstored: whether finals of an interview were told here that the store does not have yet.
        shared: other nodes, whose viewers are told too.
    """

    def __init__(
        self,
        store: TranscriptStore,
        metrics: telemetry.Metrics,
        *,
        most: int,
        unstored: Callable[[str], bool] = lambda interview: False,
        shared: SharedState | None = None,
    ) -> None:
        self.audiences: dict[str, Audience] = {}
        """By interview; only those that are watched here."""
        self.shared: SharedState = shared or MemoryState()
        self._store = store
        self._metrics = metrics
        self._most = most
        self._unstored = unstored
        self._count = 0
        self._leaving: Draining | None = None

    @property
    def viewers(self) -> int:
        return self._count

    def tell(self, key: StreamKey, event: ViewerEvent) -> None:
        """Something happened in a stream on this node; costs a look-up when nobody watches."""
        if type(event) not in _PRIVATE:
            self.shared.tell(key.interview, key.stream, event)
            self.hear(key.interview, Told(key.stream, event))

    def hear(self, interview: str, told: Told) -> None:
        """Something happened in a stream, wherever that is served."""
        audience = self.audiences.get(interview)
        if audience is not None and type(told.event) not in _PRIVATE:
            audience.tell(told)

    @contextmanager
    def watch(self, interview: str, after: FinalName | None = None) -> Iterator[Watch]:
        """Watch an interview, which need not have begun.

        Raises:
            Draining, Full: this server takes no more viewers.
        """
        if self._leaving is not None:
            raise self._leaving
        if self._count >= self._most:
            raise Full(f"this server has {self._most} viewers, the most it may", retry_after_s=RETRY_AFTER_S)
        watch = Watch(self._store, interview, after, self._unstored)
        if interview not in self.audiences:
            arranged = self.shared.condition != "alone"
            self.audiences[interview] = Audience(interview, self._store, arranged=arranged)
            self.shared.watch(interview)
        audience = self.audiences[interview]
        audience.watches.add(watch)
        self._counted(1)
        try:
            yield watch
        finally:
            self._counted(-1)
            self._metrics.viewer_catch_ups.inc(watch.catch_ups)
            audience.watches.discard(watch)
            if not audience.watches:
                del self.audiences[interview]
                audience.close()
                self.shared.unwatch(interview)

    def _counted(self, change: int) -> None:
        self._count += change
        self._metrics.viewers.set(self._count)

    def dismiss(self, interview: str, error: StreamsrvError) -> None:
        """Nobody watches this interview any longer."""
        if interview in self.audiences:
            for watch in tuple(self.audiences[interview].watches):
                watch.dismiss(error, at_once=True)

    def drain(self, within_s: float) -> None:
        """Take no newcomers, and tell those here that the server goes away."""
        self._leaving = Draining("this server is going away", hint="reconnect", retry_after_s=1.0)
        for watch in self._all():
            watch.note(events.GoAway(within_ms=round(within_s * 1000)))

    def close(self) -> None:
        """End all, each with the last event that waits for it."""
        self._leaving = self._leaving or Draining("this server is going away", hint="reconnect", retry_after_s=1.0)
        for watch in self._all():
            watch.dismiss(self._leaving, at_once=False)

    def _all(self) -> list[Watch]:
        return [watch for audience in self.audiences.values() for watch in audience.watches]
