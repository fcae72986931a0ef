"""Nodes that talk through Redis.  It holds nothing that is nowhere else: without it each node goes on by itself.

A beat every ``BEAT_S`` renews what expires (claims, leases), asks who watches what is spoken of here, and shows who
watches that nothing is missing.  The first beat that is answered is also how a Redis that was away is found again, so
after FLUSHALL, a restart or a failover everything is as before within one beat.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
from contextlib import suppress
from typing import Final

from prometheus_client import CollectorRegistry

from streamsrv.events import ViewerEvent
from streamsrv.shared_state._redis.claims import CLAIM_MS, Claims
from streamsrv.shared_state._redis.hearing import Hearing
from streamsrv.shared_state._redis.link import Away, Command, Link, end
from streamsrv.shared_state._redis.numbers import Numbers
from streamsrv.shared_state._redis.settings import RedisSettings
from streamsrv.shared_state._redis.shares import Leases
from streamsrv.shared_state._redis.starts import Starts
from streamsrv.shared_state._redis.telling import Telling
from streamsrv.shared_state._redis.wire import Deleted, Names, Watching
from streamsrv.shared_state.base import Condition, Notices

__all__ = ["RedisSettings", "RedisState"]

BEAT_S: Final = 3.0
"""A fifth of what a claim or a lease lasts."""
PAUSES_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses before Redis is tried again, and up to half as much by chance; the last one repeats."""
OPEN_WITHIN_S: Final = 2.0
"""The start of a server waits for Redis no longer."""


class RedisState:
    """See ``base.SharedState``.

    Args:
        settings: where Redis is.
        registry: takes the numbers.

    Raises:
        SetupError: the extra is missing, or the address makes no sense.
    """

    def __init__(self, settings: RedisSettings, registry: CollectorRegistry) -> None:
        node = settings.node or socket.gethostname()[:64]
        self._run = f"{node}.{secrets.token_hex(4)}"
        """Names this process: a node that is started again is another."""
        numbers = Numbers(registry)
        self._link = link = Link(settings, numbers)
        self._names = names = Names(settings.prefix)
        self._leases = Leases(link, names, self._run)
        self._starts = Starts(link, names)
        self._claims = Claims(names, self._run)
        self._telling = Telling(link, names, numbers, self._run, own=lambda name: self._hearing.listens(name))
        self._hearing = Hearing(link, names, numbers, self._run, begun=self._watching, watched=self._telling.watched)
        self._tasks: list[asyncio.Task[None]] = []
        self._beaten = asyncio.Event()

    @property
    def condition(self) -> Condition:
        return "degraded" if self._link.degraded else "ok"

    async def open(self, notices: Notices) -> None:
        """See ``base.SharedState``."""
        self._hearing.notices = notices
        work = (self._beat(), self._telling.run(), self._hearing.run())
        self._tasks = [asyncio.create_task(one) for one in work]
        with suppress(TimeoutError):
            async with asyncio.timeout(OPEN_WITHIN_S):
                await self._beaten.wait()

    async def close(self) -> None:
        """See ``base.SharedState``."""
        tasks, self._tasks = self._tasks, []
        await end(tasks)
        if tasks and self._link.well.is_set():
            with suppress(Away):
                await self._link.run([*self._claims.farewell(), *self._leases.farewell()])
        await self._link.close()

    # --- who speaks -------------------------------------------------------------------------------------------------

    def claim(self, interview: str, stream: str, epoch: int) -> None:
        """See ``base.SharedState``."""
        self._telling.order(self._claims.add(interview, stream, epoch))

    def disclaim(self, stream: str, epoch: int) -> None:
        """See ``base.SharedState``."""
        self._telling.order(self._claims.drop(stream, epoch))

    # --- viewers ----------------------------------------------------------------------------------------------------

    def watch(self, interview: str) -> None:
        """See ``base.SharedState``."""
        self._hearing.watch(interview)

    def unwatch(self, interview: str) -> None:
        """See ``base.SharedState``."""
        self._hearing.unwatch(interview)

    def tell(self, interview: str, stream: str, event: ViewerEvent) -> None:
        """See ``base.SharedState``."""
        self._telling.tell(interview, stream, event)

    def delete(self, interview: str) -> None:
        """See ``base.SharedState``."""
        self._telling.word(Deleted(self._run, interview))

    def _watching(self, interview: str) -> None:
        self._telling.word(Watching(self._run, interview))

    # --- shares -----------------------------------------------------------------------------------------------------

    async def reserve(self, holder: str, lease: str, most: int) -> bool | None:
        """See ``base.SharedState``."""
        try:
            return await self._leases.reserve(holder, lease, most)
        except BaseException:  # who asked has gone, and the answer with it
            self._telling.order(self._leases.release(holder, lease))
            raise

    def release(self, holder: str, lease: str) -> None:
        """See ``base.SharedState``."""
        self._telling.order(self._leases.release(holder, lease))

    async def start(self, holder: str, most: int) -> float | None:
        """See ``base.SharedState``."""
        return await self._starts.start(holder, most)

    # --- the beat ---------------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        failures = 0
        while True:
            try:
                if not self._link.well.is_set():
                    await self._link.renew()
                    await self._link.run([("PING",)])
                await self._renew()
            except Away:
                self._beaten.set()
                pause = PAUSES_S[min(failures, len(PAUSES_S) - 1)]
                failures += 1
                await asyncio.sleep(pause * random.uniform(1.0, 1.5))
                continue
            failures = 0
            self._link.back()
            self._beaten.set()
            self._telling.signs()
            await self._hearing.ping()
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._link.lost.wait()

    async def _renew(self) -> None:
        sign: Command = (
            "SET",
            self._names.node(self._run),
            1,
            "PX",
            CLAIM_MS,
        )  # also finds out whether writes are taken
        writes = [sign, *self._claims.renewal(), *self._leases.renewal()]
        questions = self._telling.questions()
        answers = await self._link.run([*writes, *(command for _, command in questions)])
        self._link.refused(answers[: len(writes)])
        for (interviews, _), answer in zip(questions, answers[len(writes) :], strict=True):
            self._telling.answered(interviews, answer)
