"""The outbox: finals, completed and deleted interviews on their way to the sinks, each sink for itself.

What is to be handed on lies in the store, written with what it is about; here is only who carries it, and nothing that
a crash could lose.  ``runtime/handoff`` has the parts.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
import time
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry

from streamsrv import telemetry
from streamsrv.errors import SetupError, StoreUnavailable
from streamsrv.runtime.handoff.courier import World
from streamsrv.runtime.handoff.numbers import Numbers
from streamsrv.runtime.handoff.patience import Patience
from streamsrv.runtime.handoff.relay import Relay
from streamsrv.runtime.settings import OutboxSettings
from streamsrv.sinks.base import Sink
from streamsrv.sinks.settings import KafkaSettings, RedisStreamsSettings, WebhookSettings
from streamsrv.stores.handoff import Store

FLUSH_S = 0.5
"""Time that what was just stored has to reach the sinks when the server stops; the rest goes on at the next start."""
STOP_S = 0.5
"""Time a batch under way has to come to its end then; one that is cut is sent again at the next start."""
CALM = 20
"""The store is counted through so many times more seldom than it takes."""

log = telemetry.logger("outbox")


class Outbox:
    """Relays from the store to all sinks of this server.

    Makes the store note, from now on, what is to be handed on; so it is made before anything is stored.

    Args:
        node: this node's name among those that share the store; one of its own when omitted.
        now: monotonic seconds.
        utc_ms: the wall clock.
        chance: for pauses.
    """

    def __init__(
        self,
        store: Store,
        sinks: Sequence[Sink],
        settings: OutboxSettings,
        registry: CollectorRegistry,
        *,
        node: str | None = None,
        now: Callable[[], float] = time.monotonic,
        utc_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        chance: random.Random | None = None,
    ) -> None:
        self.store = store
        names = tuple(sink.name for sink in sinks)
        self._sinks = sinks
        self._settings = settings
        self._numbers = Numbers(registry, names)
        self._utc_ms = utc_ms
        world = World(
            store=store,
            settings=settings,
            numbers=self._numbers,
            patience=Patience(settings.longest_pause_s, chance=chance or random.Random()),
            node=node or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
            now=now,
            utc_ms=utc_ms,
        )
        self._relays = [Relay(sink, world) for sink in sinks]
        self._tasks: list[asyncio.Task[None]] = []
        store.hand_to(names, stored=self._stored)

    def start(self) -> None:
        """Begin to relay, with what an earlier process left."""
        jobs = [relay.run() for relay in self._relays] + ([self._count()] if self._relays else [])
        self._tasks = [asyncio.create_task(job) for job in jobs]

    async def close(self) -> None:
        """Give what was just stored a moment, then stop; what is left is pending.  Safe to call twice."""
        tasks, self._tasks = self._tasks, []
        if not tasks:
            return
        try:
            async with asyncio.timeout(FLUSH_S):
                await asyncio.gather(*(relay.settle() for relay in self._relays))
        except TimeoutError:
            pass
        await asyncio.gather(*(relay.stop(STOP_S) for relay in self._relays))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(sink.close() for sink in self._sinks))

    async def retry(self, *, sink: str | None, interview: str | None) -> int:
        """Make dead letters pending again; how many.

        Raises:
            StoreUnavailable: come back later.
        """
        count = await self.store.retry(sink=sink, interview=interview)
        for relay in self._relays:
            relay.look_again()
        return count

    def _stored(self, interview: str) -> None:
        for relay in self._relays:
            relay.heard(interview)

    async def _count(self) -> None:
        while True:
            begun = time.monotonic()
            try:
                self._numbers.show(await self.store.figures(), self._utc_ms())
            except StoreUnavailable as error:
                log.debug("outbox.uncounted", error=error)
            await asyncio.sleep(max(self._settings.poll_s, CALM * (time.monotonic() - begun)))


def make_sinks(
    settings: OutboxSettings, *, kafka: KafkaSettings, redis_streams: RedisStreamsSettings, webhook: WebhookSettings
) -> tuple[Sink, ...]:
    """The sinks an operator named, not connected yet, their libraries imported.

    Raises:
        SetupError: one is not installed or not set up; says what to do.
    """
    made: list[Sink] = []
    for name in dict.fromkeys(settings.sinks):
        match name:
            case "kafka":
                from streamsrv.sinks.kafka import KafkaSink

                made.append(KafkaSink(kafka))
                _check_patience(settings, name, kafka.timeout_s)
            case "redis_streams":
                from streamsrv.sinks.redis_streams import RedisStreamsSink

                made.append(RedisStreamsSink(redis_streams))
                _check_patience(settings, name, redis_streams.timeout_s)
            case "webhook":
                from streamsrv.sinks.webhook import WebhookSink

                made.append(WebhookSink(webhook))
                _check_patience(settings, name, webhook.timeout_s)
    return tuple(made)


def _check_patience(settings: OutboxSettings, sink: str, timeout_s: float) -> None:
    if settings.lease_s < 2 * timeout_s:
        raise SetupError(
            f"outbox.lease_s = {settings.lease_s:g} is shorter than twice {sink}.timeout_s = {timeout_s:g}",
            hint="a lease must outlast the sending of a batch: make it longer",
        )
