"""A node that stores finals and relays them, in a process of its own that may be killed, or kills itself.

``python -m tests.services.relaying PLAN`` with the plan as JSON.  It says ``{"stored": SEGMENT}`` for each round of
finals, ``{"handed": COUNT}`` when nothing is pending any more, and goes on until it is stopped.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import Literal

import msgspec
from prometheus_client import CollectorRegistry

from streamsrv.runtime.outbox import Outbox
from streamsrv.runtime.settings import OutboxSettings
from streamsrv.sinks.base import Outcome, Record, Sink
from streamsrv.sinks.kafka import KafkaSink
from streamsrv.sinks.redis_streams import RedisStreamsSink
from streamsrv.sinks.settings import KafkaSettings, RedisStreamsSettings
from streamsrv.stores.base import StreamStats
from streamsrv.stores.handoff import Store
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.stores.builders import NOW_MS, begin, final, token


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a node does."""

    data_dir: str | None = None
    mongo_url: str | None = None
    database: str = "streamsrv_test"
    node: str = ""
    kafka: str | None = None
    topic: str = ""
    redis: str | None = None
    stream: str = ""
    interviews: int = 0
    """So many are written to, from where they stand; 0: only relay."""
    finals: int = 0
    """Of each interview in the end; then it is completed."""
    die: Literal["", "before", "after"] = ""
    """Kill this process when the sink is about to be given a batch, or when it has it and the store does not know."""
    batches: int = 1
    """That many go well before."""
    lease_s: float = 30.0


class Doomed:
    """A sink that kills its process."""

    def __init__(self, sink: Sink, plan: Plan) -> None:
        self.name = sink.name
        self._sink = sink
        self._plan = plan
        self._left = plan.batches

    async def send(self, batch: Sequence[Record]) -> Outcome:
        self._left -= 1
        if self._left < 0 and self._plan.die == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        outcome = await self._sink.send(batch)
        if self._left < 0 and self._plan.die == "after" and outcome.taken:
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome

    async def close(self) -> None:
        await self._sink.close()


def say(**what: object) -> None:
    sys.stdout.write(msgspec.json.encode(what).decode() + "\n")
    sys.stdout.flush()


def make_store(plan: Plan) -> Store:
    if plan.mongo_url is None:
        return SqliteStore(SqliteSettings(data_dir=plan.data_dir or ""))
    from streamsrv.stores.mongo.settings import MongoSettings
    from streamsrv.stores.mongo.store import MongoStore

    return MongoStore(MongoSettings(url=plan.mongo_url, database=plan.database), node=plan.node)


def make_sink(plan: Plan) -> Sink:
    if plan.kafka:
        return KafkaSink(KafkaSettings(bootstrap=(plan.kafka,), topic=plan.topic, timeout_s=5))
    return RedisStreamsSink(RedisStreamsSettings(url=plan.redis, stream=plan.stream, timeout_s=2))


async def write(store: Store, plan: Plan, number: int) -> None:
    """One interview, from where it stands to its end."""
    interview, stream = f"t-{number}", f"st-{number}"
    known = await store.streams(interview)
    if known and known[0].status == "ended":
        return
    if known:
        resumed = await store.resume_stream(stream, token(stream), now_ms=NOW_MS)
        key, segment = resumed.key, resumed.starts[0].next_segment
    else:
        _, key = await begin(store, interview, stream)
        segment = 0
    for following in range(segment, plan.finals):
        assert await store.keep_final(key, final(following))
        if number == 0:
            say(stored=following)
        await asyncio.sleep(0.001)
    assert await store.end_stream(key, stats=StreamStats(), now_ms=NOW_MS)


async def main(plan: Plan) -> None:
    store = make_store(plan)
    registry = CollectorRegistry()
    settings = OutboxSettings(poll_s=0.2, longest_pause_s=0.5, batch=7, lease_s=plan.lease_s)
    outbox = Outbox(store, [Doomed(make_sink(plan), plan)], settings, registry, node=plan.node or None)
    await store.open()
    outbox.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await asyncio.gather(*(write(store, plan, number) for number in range(plan.interviews)))
    while any(one.pending for one in await store.figures()):  # noqa: ASYNC110 -- nobody tells when all is handed
        await asyncio.sleep(0.05)
    say(handed=1)
    await stop.wait()
    await outbox.close()
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Plan)))
