"""The other nodes of the service: what they say is passed on here, and checked against the store where it matters.

Whatever they say is a hint.  A stream is given up for a newer epoch only when the store knows that epoch.  Finals of
other nodes reach viewers here also when a message is lost without a trace: while somebody watches, the store is looked
at now and then, and whoever should have been told reads it again.  The same looks tell whether a speaker who is waited
for here was let in elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry

from streamsrv import events, telemetry
from streamsrv.errors import Stopped, StoreUnavailable
from streamsrv.events import ViewerEvent
from streamsrv.runtime.fanout import Fanout, Told
from streamsrv.runtime.streams import Streams
from streamsrv.shared_state._redis.settings import RedisSettings
from streamsrv.shared_state.base import SharedState
from streamsrv.shared_state.memory import MemoryState
from streamsrv.stores.base import Stream, TranscriptStore

CHECK_EVERY_S: Final = 10.0
"""Pause between two looks into the store for each interview watched or waited for here, while others are heard."""
CHECK_DEGRADED_S: Final = 2.0
"""The same while they are not."""
MAX_WAITED: Final = 64
"""Interviews of absent speakers that one look asks for; the others' streams end when their window is over, as all do
where no other node is heard of."""
MAX_QUESTIONS: Final = 256
"""Hints that are being checked with the store; more are dropped, which is what hints are for."""

log = telemetry.logger("neighbours")


def make_shared(settings: RedisSettings, registry: CollectorRegistry) -> SharedState:
    """What the settings name.

    Raises:
        SetupError: it cannot work as configured.
    """
    if settings.url is None:
        return MemoryState()
    from streamsrv.shared_state.redis import RedisState

    return RedisState(settings, registry)


class Neighbours:
    """Hears the others; see ``shared_state.base.Notices``.

    Args:
        shared: how they are reached.
        fanout: viewers on this node.
        streams: those this node serves.
    """

    def __init__(self, shared: SharedState, store: TranscriptStore, fanout: Fanout, streams: Streams) -> None:
        self._shared = shared
        self._store = store
        self._fanout = fanout
        self._streams = streams
        self._questions: set[asyncio.Task[None]] = set()
        self._behind: set[str] = set()
        """Interviews whose streams will be looked at."""

    # --- notices ------------------------------------------------------------------------------------------------

    def told(self, interview: str, stream: str, event: ViewerEvent) -> None:
        """See ``Notices``."""
        self._fanout.hear(interview, Told(stream, event))

    def missed(self, interview: str) -> None:
        """See ``Notices``."""
        audience = self._fanout.audiences.get(interview)
        if audience is not None:
            audience.read_on()
            if interview not in self._behind and self._ask(partial(self._catch_up, interview)):
                self._behind.add(interview)

    def taken(self, interview: str, stream: str, epoch: int, node: str) -> None:
        """See ``Notices``."""
        if self._streams.serves(stream, older_than=epoch):
            self._ask(partial(self._taken, interview, stream, node))

    def deleted(self, interview: str) -> None:
        """See ``Notices``."""
        if interview in self._fanout.audiences or self._streams.holds(interview):
            self._ask(partial(self._deleted, interview))

    def _ask(self, question: Callable[[], Coroutine[None, None, None]]) -> bool:
        if len(self._questions) >= MAX_QUESTIONS:
            return False
        task = asyncio.create_task(question())
        self._questions.add(task)
        task.add_done_callback(self._questions.discard)
        return True

    async def _catch_up(self, interview: str) -> None:
        self._behind.discard(interview)
        with suppress(StoreUnavailable):
            await self._streams_of(interview)

    async def _streams_of(self, interview: str) -> None:
        """Tell those who watch of streams that began or ended without a word, and give up those taken without one."""
        known = await self._store.streams(interview)
        for one in known:
            self._give_up(interview, one)
        if not known and self._streams.holds(interview):
            await self._deleted(interview)
        audience = self._fanout.audiences.get(interview)
        if audience is None:
            return
        for one in known:
            if one.status == "live" and one.id not in audience.live:
                audience.tell(Told(one.id, events.Configured(options=one.options)))
            elif one.status == "ended" and one.id in audience.live and not self._streams.serves(one.id):
                audience.read_on()  # its last finals come first
                audience.tell(Told(one.id, events.StreamOver()))

    async def _taken(self, interview: str, stream: str, node: str) -> None:
        try:
            known = await self._store.streams(interview)
        except StoreUnavailable:
            return  # the store refuses the older epoch's next final anyway
        for one in known:
            if one.id == stream:
                self._give_up(interview, one, by=node)

    def _give_up(self, interview: str, known: Stream, *, by: str | None = None) -> None:
        """Let go of a stream that the store knows a newer epoch of."""
        if self._streams.supersede(known.id, known.epochs[-1].epoch):
            log.info("neighbours.stream_taken", interview=interview, stream=known.id, by=by or "found in the store")

    async def _deleted(self, interview: str) -> None:
        try:
            known = await self._store.interview(interview)
        except StoreUnavailable:
            return
        if known is None:
            error = Stopped(f"interview '{interview}' was deleted")
            self._streams.drop(interview, error)
            self._fanout.dismiss(interview, error)

    # --- looking into the store ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look now and then, for as long as the server lives."""
        while self._shared.condition != "alone":
            await asyncio.sleep(CHECK_DEGRADED_S if self._shared.condition == "degraded" else CHECK_EVERY_S)
            try:
                await self.check()
            except StoreUnavailable as error:
                log.debug("neighbours.wait", error=error)
            except Exception as error:  # one fault of ours must not end all later looks
                log.error("neighbours.look_failed", error=error)

    async def close(self) -> None:
        """Ask no more."""
        for task in tuple(self._questions):
            task.cancel()
        await asyncio.gather(*self._questions, return_exceptions=True)

    async def check(self) -> None:
        """Look once, at every interview that is watched here, or has a stream that waits here for its speaker.

        Raises:
            StoreUnavailable: at another time, perhaps.
        """
        for interview, audience in list(self._fanout.audiences.items()):
            audience.read_on()
            await self._streams_of(interview)
        waited_for = [one for one in self._streams.waited_for() if one not in self._fanout.audiences]
        for interview in waited_for[:MAX_WAITED]:
            await self._streams_of(interview)
