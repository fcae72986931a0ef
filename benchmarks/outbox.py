"""The outbox into a real Kafka, this process on one core: finals a second, recovery of a backlog, lag under load.

    python -m benchmarks.outbox                         starts the Kafka that tests/services uses
    python -m benchmarks.outbox --bootstrap HOST:9092   another one
    python -m benchmarks.outbox --mongo                 recovery out of MongoDB's stand-in of tests/services, not SQLite
    python -m benchmarks.outbox --mongo mongodb://HOST/ out of a server that runs; in a database that goes at the end

Every run reads the topic back: each final must be there once, each interview in order, or the figures are no figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

from aiokafka import AIOKafkaConsumer
from prometheus_client import CollectorRegistry
from pymongo import AsyncMongoClient

from benchmarks.report import RESULTS, begin, gauge
from streamsrv.commands import Options
from streamsrv.events import Final
from streamsrv.facts import RATE_HZ, Word
from streamsrv.runtime.outbox import Outbox
from streamsrv.runtime.settings import OutboxSettings
from streamsrv.sinks.kafka import KafkaSink
from streamsrv.sinks.settings import KafkaSettings
from streamsrv.stores.base import StreamKey
from streamsrv.stores.handoff import Store
from streamsrv.stores.mongo.settings import MongoSettings
from streamsrv.stores.mongo.store import MongoStore
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.services.servers import KafkaServer, MongoServer

WORDS = 12
"""Of each final: some four seconds of speech."""
GOAL_PER_S = 2_000
GOAL_RECOVERY_S = 30.0
WITHIN_S = 120.0

Figures: TypeAlias = dict[str, float | bool]
Stores: TypeAlias = Callable[[], AbstractAsyncContextManager[Store]]
"""Makes one of its own for each run, not open yet, and puts it away."""


def final(segment: int) -> Final:
    start = segment * 4 * RATE_HZ
    words = tuple(
        Word(text=f"word{number}", start=start + number * 5_000, stop=start + number * 5_000 + 4_000, confidence=0.9)
        for number in range(WORDS)
    )
    return Final(
        channel=0,
        utterance=segment,
        segment=segment,
        start=start,
        stop=start + 4 * RATE_HZ,
        text=" ".join(word.text for word in words),
        words=words,
        cause="vad",
        endpoint=True,
        engine="scripted",
    )


class Stage:
    """A store with streams, and an outbox into a topic of its own."""

    def __init__(self, store: Store, bootstrap: str, topic: str) -> None:
        self.topic, self.bootstrap = topic, bootstrap
        self.store = store
        self.registry = CollectorRegistry()
        sink = KafkaSink(KafkaSettings(bootstrap=(bootstrap,), topic=topic))
        self.outbox = Outbox(self.store, [sink], OutboxSettings(poll_s=1.0), self.registry)
        self.segments: dict[str, int] = {}

    async def begin(self, interviews: int) -> list[StreamKey]:
        await self.store.open()
        keys = []
        for number in range(interviews):
            name, stream = f"bench-{number}", f"st-{number}"
            await self.store.begin_stream(
                interview=name, stream=stream, token_hash=bytes(32), options=Options(), engine="scripted", now_ms=1
            )
            keys.append(StreamKey(interview=name, stream=stream, epoch=1))
        return keys

    async def keep(self, key: StreamKey, count: int = 1) -> None:
        for _ in range(count):
            segment = self.segments.get(key.stream, 0)
            self.segments[key.stream] = segment + 1
            assert await self.store.keep_final(key, final(segment))

    def number(self, name: str) -> float:
        return self.registry.get_sample_value(f"streamsrv_outbox_{name}", {"sink": "kafka"}) or 0.0

    def lag_below(self, edge: str) -> float:
        """Finals that were handed on within so many seconds of being stored."""
        labels = {"sink": "kafka", "le": edge}
        return self.registry.get_sample_value("streamsrv_outbox_lag_seconds_bucket", labels) or 0.0

    async def handed(self, count: int, within_s: float = WITHIN_S) -> None:
        async with asyncio.timeout(within_s):
            while self.number("handed_total") < count:  # noqa: ASYNC110 -- what is measured must not be hooked into
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        await self.outbox.close()
        await self.store.close()

    async def complete(self) -> bool:
        """Whether the topic has every final once, and each interview in order."""
        consumer = AIOKafkaConsumer(
            self.topic, bootstrap_servers=self.bootstrap, auto_offset_reset="earliest", group_id=None
        )
        await consumer.start()
        found: dict[str, list[int]] = {}
        want = sum(self.segments.values())
        try:
            while sum(map(len, found.values())) < want:
                batches = await consumer.getmany(timeout_ms=3_000)
                if not batches:
                    return False
                for record in (one for batch in batches.values() for one in batch):
                    event = json.loads(record.value or b"")
                    found.setdefault(event["stream"], []).append(event["segment"])
        finally:
            await consumer.stop()
        return found == {stream: list(range(count)) for stream, count in self.segments.items()}


async def backlog(store: Store, *, bootstrap: str, interviews: int, each: int) -> Figures:
    """So many finals are pending when the outbox starts."""
    stage = Stage(store, bootstrap, f"bench-backlog-{interviews}-{time.time_ns()}")
    keys = await stage.begin(interviews)
    await asyncio.gather(*(stage.keep(key, each) for key in keys))
    count = interviews * each
    wall, cpu = time.perf_counter(), time.process_time()
    stage.outbox.start()
    await stage.handed(count)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    await stage.close()
    return {
        "finals": count,
        "interviews": interviews,
        "seconds": round(wall, 3),
        "finals_per_s": round(count / wall),
        "cpu_us_per_final": round(1e6 * cpu / count, 1),
        "complete_and_in_order": await stage.complete(),
    }


async def steady(store: Store, *, bootstrap: str, interviews: int, per_s: int, seconds: int) -> Figures:
    """Finals are stored at this pace, in this process too, and handed on meanwhile."""
    stage = Stage(store, bootstrap, f"bench-steady-{time.time_ns()}")
    keys = await stage.begin(interviews)
    stage.outbox.start()
    await stage.keep(keys[0])
    await stage.handed(1)  # connected, topic made
    begun, cpu = time.perf_counter(), time.process_time()
    tasks: list[asyncio.Task[None]] = []
    behind: list[float] = []
    for tick in range(seconds * 50):
        due = begun + tick / 50
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        behind.append(time.perf_counter() - due)
        size = per_s // 50
        tasks += [asyncio.create_task(stage.keep(keys[(tick * size + n) % interviews])) for n in range(size)]
    await asyncio.gather(*tasks)
    await stage.handed(sum(stage.segments.values()))
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    lag = {edge: stage.lag_below(edge) for edge in ("0.1", "0.25", "1.0")}
    await stage.close()
    count = sum(stage.segments.values())
    return {
        "finals": count,
        "interviews": interviews,
        "asked_per_s": per_s,
        "finals_per_s": round((count - 1) / wall),
        "cpu_us_per_final_storing_included": round(1e6 * cpu / count, 1),
        "loop_late_p99_ms": round(1e3 * statistics.quantiles(behind, n=100)[98], 1),
        **{f"share_handed_within_{edge}_s": round(value / count, 4) for edge, value in lag.items()},
        "complete_and_in_order": await stage.complete(),
    }


@contextmanager
def broker(bootstrap: str | None) -> Iterator[str]:
    if bootstrap:
        yield bootstrap
        return
    with tempfile.TemporaryDirectory() as folder, KafkaServer(Path(folder) / "kafka") as server:
        yield server.start().url


@asynccontextmanager
async def sqlite() -> AsyncIterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        yield SqliteStore(SqliteSettings(data_dir=folder))


@asynccontextmanager
async def mongo(url: str) -> AsyncIterator[Store]:
    name = f"streamsrv_bench_{time.time_ns()}"
    try:
        yield MongoStore(MongoSettings(url=url, database=name))
    finally:
        async with AsyncMongoClient[dict[str, object]](url) as client:
            await client.drop_database(name)


@contextmanager
def stores(url: str | None) -> Iterator[Stores]:
    """SQLite; with an address MongoDB there, with an empty one MongoDB's stand-in."""
    if url is None:
        yield sqlite
    elif url:
        yield partial(mongo, url)
    else:
        with tempfile.TemporaryDirectory() as folder, MongoServer(Path(folder) / "mongo") as server:
            yield partial(mongo, server.start().url)


def planned(bootstrap: str, *, recovery: bool) -> dict[str, Callable[[Store], Coroutine[None, None, Figures]]]:
    """The runs, by name; of those only the ones that recover what was pending at the start."""
    runs: dict[str, Callable[[Store], Coroutine[None, None, Figures]]] = {
        "backlog_of_10000_in_1000_interviews": partial(backlog, bootstrap=bootstrap, interviews=1_000, each=10),
        "backlog_of_10000_in_1_interview": partial(backlog, bootstrap=bootstrap, interviews=1, each=10_000),
    }
    if recovery:
        return runs
    return {
        "backlog_of_100_interviews": partial(backlog, bootstrap=bootstrap, interviews=100, each=200),
        **runs,
        "steady_2000_per_s": partial(steady, bootstrap=bootstrap, interviews=200, per_s=GOAL_PER_S, seconds=10),
    }


async def once(run: Callable[[Store], Coroutine[None, None, Figures]], make: Stores) -> Figures:
    async with make() as store:
        return await run(store)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--bootstrap", help="a Kafka that runs already")
    arguments.add_argument("--mongo", nargs="?", const="", metavar="URL", help="recovery out of MongoDB")
    arguments.add_argument("--keep", action="store_true", help="write the figures to benchmarks/results")
    chosen = arguments.parse_args()
    name = "outbox" if chosen.mongo is None else "outbox-mongo" if chosen.mongo else "outbox-mongo-stand-in"
    report = begin("python -m benchmarks.outbox" + (" --mongo" if chosen.mongo is not None else ""))
    figures: dict[str, object] = {"command": report.command, "date": report.date, "machine": report.machine}
    figures["gauge_before_ms"] = round(gauge(), 2)
    with broker(chosen.bootstrap) as bootstrap, stores(chosen.mongo) as make:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[:1])  # the servers have the others
        whole = True
        for title, run in planned(bootstrap, recovery=chosen.mongo is not None).items():
            figures[title] = found = asyncio.run(once(run, make))
            whole = whole and bool(found["complete_and_in_order"])
            print(f"{title}: {json.dumps(found)}", flush=True)
    figures["gauge_after_ms"] = round(gauge(), 2)
    print(f"goals: {GOAL_PER_S} finals/s; 10000 pending in less than {GOAL_RECOVERY_S:g} s")
    if chosen.keep:
        path = RESULTS / f"{name}-{report.date}.json"
        path.write_text(json.dumps(figures, indent=2) + "\n")
        print(f"kept in {os.path.relpath(path)}")
    return 0 if whole else 1


if __name__ == "__main__":
    raise SystemExit(main())
