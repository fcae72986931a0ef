"""Nodes and consumers that are killed between any two steps: after dedupe everything is there once, and in order."""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pymongo import AsyncMongoClient
from redis.asyncio import Redis

from examples.analysis_consumer import Inbox
from tests.services.relaying import Plan
from tests.services.servers import KafkaServer
from tests.services.test_sinks import everything

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
ROOT = Path(__file__).parents[2]
SEED = int(os.environ.get("SEED", "20261125"))
INTERVIEWS, FINALS = 6, 60


@asynccontextmanager
async def running(*words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def node(plan: Plan) -> AsyncIterator[asyncio.subprocess.Process]:
    async with running("-m", "tests.services.relaying", msgspec.json.encode(plan).decode()) as process:
        yield process


async def line(process: asyncio.subprocess.Process, wanted: str = "") -> dict[str, Any] | None:
    """The next line that has ``wanted``; ``None`` when the process is gone."""
    assert process.stdout is not None
    async for text in process.stdout:
        if wanted in (found := json.loads(text)) or not wanted:
            return dict(found)
    return None


async def to_the_end(plan: Plan) -> None:
    async with node(plan) as process:
        assert await line(process, "handed")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


class Bus:
    """What a sink got, in the order in which it got it."""

    def __init__(self, told: list[dict[str, Any]]) -> None:
        self.events = told

    def check(self, *, interviews: int = INTERVIEWS, finals: int = FINALS) -> int:
        """Every event is there, and each interview's are in order when they are seen first; how many are doubles."""
        for number in range(interviews):
            mine = [event for event in self.events if event["interview"] == f"t-{number}"]
            first = list({event["id"]: event for event in mine}.values())
            assert [one["segment"] for one in first[:-1]] == list(range(finals))
            assert (first[-1]["type"], first[-1]["revision"]) == ("transcript.completed", 1)
            assert first[-1]["streams"][0]["finals"] == finals
        return len(self.events) - interviews * (finals + 1)

    def taken(self, path: Path, *, interviews: int = INTERVIEWS, finals: int = FINALS) -> None:
        """A consumer has each effect once."""
        with closing(Inbox(str(path))) as inbox:
            inbox.take(self.events)
            for number in range(interviews):
                assert inbox.transcript(f"t-{number}") == [f"segment {n}" for n in range(finals)]
                assert inbox.missing(f"t-{number}") == {}


async def of_redis(url: str, stream: str) -> Bus:
    async with Redis.from_url(url) as redis:
        return Bus([json.loads(found[b"event"]) for _, found in await redis.xrange(stream) or () if found])


async def of_kafka(bootstrap: str, topic: str) -> Bus:
    return Bus([json.loads(one.value) for one in await everything(bootstrap, topic)])


def name() -> str:
    return f"streamsrv-test-{secrets.token_hex(4)}"


@pytest.mark.parametrize("die", ["before", "after"])
async def test_a_node_killed_around_the_sending_to_kafka(tmp_path: Path, kafka_bootstrap: str, die: Any) -> None:
    """Between commit and publish; between publish and the mark that it was sent."""
    plan = Plan(data_dir=str(tmp_path / "data"), kafka=kafka_bootstrap, topic=name(), interviews=3, finals=30)
    for batches in (0, 3):
        async with node(msgspec.structs.replace(plan, die=die, batches=batches)) as process:
            assert await process.wait() == -signal.SIGKILL
    await to_the_end(plan)
    bus = await of_kafka(kafka_bootstrap, plan.topic)
    doubles = bus.check(interviews=3, finals=30)
    assert (doubles > 0) == (die == "after"), "a batch that was sent and not marked comes again"
    bus.taken(tmp_path / "inbox.db", interviews=3, finals=30)


async def test_a_node_killed_at_any_instant(tmp_path: Path, redis_url: str) -> None:
    rng = random.Random(SEED)
    plan = Plan(data_dir=str(tmp_path / "data"), redis=redis_url, stream=name(), interviews=INTERVIEWS, finals=FINALS)
    for _ in range(6):
        async with node(plan) as process:
            if await line(process) is None:
                break
            await asyncio.sleep(rng.uniform(0, 0.06))
            process.kill()
            await process.wait()
    await to_the_end(plan)
    bus = await of_redis(redis_url, plan.stream)
    bus.check()
    bus.taken(tmp_path / "inbox.db")


async def test_kafka_goes_and_comes_back_while_finals_are_stored(tmp_path: Path, own_kafka: KafkaServer) -> None:
    plan = Plan(data_dir=str(tmp_path / "data"), kafka=own_kafka.url, topic=name(), interviews=INTERVIEWS, finals=400)
    async with node(plan) as process:
        for _ in range(100):
            assert await line(process, "stored")
        own_kafka.kill()
        for _ in range(300):
            assert await line(process, "stored"), "storing does not wait for a sink"
        await asyncio.to_thread(own_kafka.start)
        assert await line(process, "handed")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    (await of_kafka(own_kafka.url, plan.topic)).check(finals=400)


async def test_two_nodes_on_one_mongo_and_one_is_killed(tmp_path: Path, mongo_url: str, redis_url: str) -> None:
    """Both relay; what the dead one held goes on when its leases expire, or when it comes back under its name."""
    database = f"streamsrv_test_{secrets.token_hex(6)}"
    plan = Plan(mongo_url=mongo_url, database=database, redis=redis_url, stream=name(), lease_s=4.0, finals=FINALS)
    writer = msgspec.structs.replace(plan, node="n-writer", interviews=INTERVIEWS)
    relayer = msgspec.structs.replace(plan, node="n-relayer")
    try:
        async with node(writer) as one:
            assert await line(one, "stored")
            async with node(relayer):
                for _ in range(20):
                    assert await line(one, "stored")
                one.kill()
                await one.wait()
                async with node(relayer), node(writer) as again:
                    assert await line(again, "handed")
        bus = await of_redis(redis_url, plan.stream)
        bus.check()
        bus.taken(tmp_path / "inbox.db")
    finally:
        client: AsyncMongoClient[dict[str, object]] = AsyncMongoClient(mongo_url)
        async with client:
            await client.drop_database(database)


# --- consumers ----------------------------------------------------------------------------------------------------


def rows(path: Path) -> int:
    try:
        with closing(sqlite3.connect(path)) as db:
            return int(db.execute("SELECT count(*) FROM finals").fetchone()[0])
    except sqlite3.OperationalError:  # not made yet
        return 0


async def consumed(path: Path, words: list[str], *, kills: int) -> None:
    """A consumer that is killed at any instant, started again each time, until it has everything."""
    rng = random.Random(SEED)
    whole = INTERVIEWS * FINALS
    for _ in range(kills):
        if rows(path) >= whole:  # quick as it was, it had taken everything before it was killed
            break
        async with running("examples/analysis_consumer.py", "--inbox", str(path), *words) as process:
            assert await line(process, "taken")
            await asyncio.sleep(rng.uniform(0, 0.02))
    async with running("examples/analysis_consumer.py", "--inbox", str(path), *words):
        async with asyncio.timeout(60):
            while rows(path) < whole:  # noqa: ASYNC110 -- another process writes
                await asyncio.sleep(0.05)
    with closing(Inbox(str(path))) as inbox:
        for number in range(INTERVIEWS):
            assert inbox.transcript(f"t-{number}") == [f"segment {n}" for n in range(FINALS)]


async def test_a_consumer_of_a_redis_stream_that_is_killed(tmp_path: Path, redis_url: str) -> None:
    plan = Plan(data_dir=str(tmp_path / "data"), redis=redis_url, stream=name(), interviews=INTERVIEWS, finals=FINALS)
    await to_the_end(plan)
    words = ["redis", "--url", redis_url, "--stream", plan.stream]
    await consumed(tmp_path / "inbox.db", words, kills=2)


async def test_a_consumer_of_kafka_that_is_killed(tmp_path: Path, kafka_bootstrap: str) -> None:
    plan = Plan(
        data_dir=str(tmp_path / "data"), kafka=kafka_bootstrap, topic=name(), interviews=INTERVIEWS, finals=FINALS
    )
    await to_the_end(plan)
    words = ["kafka", "--bootstrap", kafka_bootstrap, "--topic", plan.topic, "--group", name()]
    await consumed(tmp_path / "inbox.db", words, kills=1)
