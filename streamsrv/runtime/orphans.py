"""Streams that no server holds, as a crash leaves them: each may be resumed for a while, then it is ended; those that
nobody can resume are not waited for."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping

from streamsrv import telemetry
from streamsrv.errors import NotFound, StoreUnavailable
from streamsrv.events import StreamOver
from streamsrv.runtime.surroundings import Services
from streamsrv.session.settings import window_over
from streamsrv.stores.base import StreamKey, StreamStats

LOOK_S = 10.0
"""Pause between two looks, or a sixth of the time a stream is waited for."""
MAX_DISOWNED = 10_000
"""Streams remembered that nobody can come back to; those after them are waited for like any other."""
DISOWNED_S = 120.0
"""They are looked for so long, and once at least: by then a store has done what it was asked for, or never will."""

log = telemetry.logger("streams")


class Orphans:
    """Looks for them from time to time.

    Args:
        services: store and clocks.
        window_s: how long a speaker may stay away; while the store is away that does not count.
        held: whether this node serves a stream.
    """

    def __init__(self, services: Services, window_s: float, held: Callable[[str], bool]) -> None:
        self._services = services
        self._window_s = window_s
        self._held = held
        self._looking: asyncio.Task[None] | None = None
        self._disowned: dict[str, float] = {}
        """Each with the time when it was."""

    async def start(self) -> None:
        """Look now and from time to time.

        Raises:
            StoreUnavailable: the streams cannot be read.
        """
        left = await self._left({}, self._window_s)
        self._looking = asyncio.create_task(self._look(left))

    def disown(self, stream: str) -> None:
        """Nobody was given this stream's token, yet it may be in the store, or come there.

        It is ended when it is found a second time, a pause between two looks after now at the earliest: what belongs to
        its beginning is done by then.
        """
        if len(self._disowned) < MAX_DISOWNED:
            self._disowned[stream] = self._services.now()

    def cancel(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    async def close(self) -> None:
        """Look no more, and wait for what is under way."""
        self.cancel()
        if self._looking is not None:
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _left(self, known: Mapping[StreamKey, float], window_s: float) -> dict[StreamKey, float]:
        """Streams that no server holds, each with the time when it is to be ended; those known keep theirs."""
        found = [key for key in await self._services.store.left_streams() if not self._held(key.stream)]
        if new := len(set(found).difference(known)):
            log.info("streams.found_open", streams=new)
        now = self._services.now()
        ends = {key: known.get(key, now + window_s) for key in found}
        for key in found:
            if key in known and self._disowned.get(key.stream, math.inf) + self._pause_s <= now:
                ends[key] = -math.inf
        there = {key.stream for key in found}
        self._disowned = {one: at for one, at in self._disowned.items() if now < at + DISOWNED_S or one in there}
        return ends

    @property
    def _pause_s(self) -> float:
        """Between two looks."""
        return min(LOOK_S, max(1.0, self._window_s / 6))

    async def _look(self, left: dict[StreamKey, float]) -> None:
        # What begins here is for a moment in the store and not among the held: it is looked twice.
        window_s = max(LOOK_S, self._window_s)
        while True:
            for key in tuple(left):
                if self._due(left[key]) <= self._services.now():
                    await self._end(key)
                    del left[key]
            next_s = min([self._pause_s, *(self._due(end) - self._services.now() for end in left.values())])
            await asyncio.sleep(max(0.0, next_s))
            try:
                left = await self._left(left, window_s)
            except StoreUnavailable:
                self._services.spool.store_away.seen()
            except Exception as error:  # one fault of ours must not leave all later streams open
                log.error("streams.look_failed", error=error)

    def _due(self, end: float) -> float:
        """When a stream is ended: as a session that waits for its speaker does, it waits for the store, too."""
        return window_over(end - self._window_s, self._services.spool.store_away.at, self._window_s)

    async def _end(self, key: StreamKey) -> None:
        while True:
            try:
                await self._services.spool.settle(key.stream)
                if await self._services.store.end_stream(key, stats=StreamStats(), now_ms=self._services.utc_ms()):
                    self._services.fanout.tell(key, StreamOver())
                return
            except NotFound:  # its interview was deleted meanwhile
                return self._services.fanout.tell(key, StreamOver())
            except StoreUnavailable:
                self._services.spool.store_away.seen()
                await asyncio.sleep(1.0)
            except Exception as error:  # the next look finds it again
                return log.error("streams.not_ended", error=error, stream=key.stream)
