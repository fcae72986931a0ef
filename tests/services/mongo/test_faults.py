"""The server killed, hung and started again under writers: nothing lost, nothing doubled, one owner."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TypeVar

import msgspec
import pytest

from streamsrv.errors import StoreUnavailable
from streamsrv.stores.base import StreamStats
from streamsrv.stores.handoff import Outgoing
from streamsrv.stores.mongo.settings import MongoSettings
from streamsrv.stores.mongo.store import MongoStore
from tests.services.servers import Mongo
from tests.stores.builders import NOW_MS, begin, final, token

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
T = TypeVar("T")
STREAMS = 6
FINALS = 60


def quick(server: Mongo) -> MongoSettings:
    return MongoSettings(url=server.url, database=server.database, timeout_s=1.0, start_within_s=5)


async def persist(call: Callable[[], Awaitable[T]]) -> T:
    """As a session does: until the store answers."""
    while True:
        try:
            return await call()
        except StoreUnavailable:
            await asyncio.sleep(0.02)


async def speak(store: MongoStore, number: int, spoken: list[int]) -> None:
    _, key = await persist(lambda: begin(store, stream=f"s{number}"))
    for segment in range(FINALS):
        said = final(segment, text=f"{number}:{segment}")
        assert await persist(partial(store.keep_final, key, said))
        spoken[number] = segment
        await asyncio.sleep(0.01)
    assert await persist(lambda: store.end_stream(key, stats=StreamStats(), now_ms=NOW_MS))


@pytest.mark.parametrize("seed", range(3))
async def test_killed_and_hung_under_writers(own_mongo: Mongo, seed: int) -> None:
    rng = random.Random(seed)
    store = MongoStore(quick(own_mongo))
    store.hand_to(("kafka",))
    await store.open()
    spoken = [-1] * STREAMS
    try:
        async with asyncio.timeout(60):
            speaking = asyncio.gather(*(speak(store, number, spoken) for number in range(STREAMS)))
            for harm in rng.sample(["kill", "pause", "kill", "pause"], 4):
                await asyncio.sleep(rng.uniform(0.1, 0.3))
                if harm == "kill":
                    own_mongo.kill()
                    acknowledged = sum(spoken) + STREAMS
                    await asyncio.sleep(rng.uniform(0.0, 0.5))
                    await asyncio.to_thread(own_mongo.start)
                    reader = MongoStore(quick(own_mongo))
                    await reader.open()
                    assert len(await reader.finals("talk")) >= acknowledged
                    await reader.close()
                else:
                    own_mongo.pause()
                    await asyncio.sleep(rng.uniform(0.5, 1.5))
                    own_mongo.resume()
            await speaking
        kept = await store.finals("talk")
        found = sorted((int(one.stream[1:]), one.final.segment, one.final.text) for one in kept)
        assert found == [(n, segment, f"{n}:{segment}") for n in range(STREAMS) for segment in range(FINALS)]
        interview = await store.interview("talk")
        assert interview is not None
        assert interview.status == "completed"
        assert sorted(one.order for one in await store.streams("talk")) == list(range(1, STREAMS + 1))
        waiting = [one async for one in _all_waiting(store)]
        assert len(waiting) == STREAMS * FINALS + 1
    finally:
        await store.close()


async def _all_waiting(store: MongoStore) -> AsyncIterator[Outgoing]:
    while found := (await store.waiting("kafka", "talk", limit=200)).handoffs:
        for one in found:
            yield one.what
        await store.handed("kafka", "talk", [one.place for one in found])


async def test_a_hung_server_is_unavailable_in_time_and_what_it_did_is_found_done(own_mongo: Mongo) -> None:
    store = MongoStore(quick(own_mongo))
    await store.open()
    try:
        _, key = await begin(store)
        own_mongo.pause()
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await store.keep_final(key, final(0))
        assert time.monotonic() - begun < 3
        own_mongo.resume()
        assert await persist(lambda: store.keep_final(key, final(0)))
        assert [one.final for one in await store.finals("talk")] == [final(0)]
    finally:
        await store.close()


@pytest.mark.usefixtures("database")
async def test_of_racing_nodes_one_owns_the_stream_and_no_acknowledged_final_is_lost(settings: MongoSettings) -> None:
    """Two nodes take a stream from each other while each writes what it thinks is its to write."""
    nodes = [MongoStore(settings, node=f"n-{number}") for number in range(3)]
    for node in nodes:
        await node.open()
    interview, stream = f"talk-{time.time_ns()}", f"s-{time.time_ns()}"
    try:
        await begin(nodes[0], interview, stream)
        epochs: list[int] = []
        acknowledged: dict[int, str] = {}

        async def own(node: MongoStore, number: int) -> None:
            for _ in range(8):
                resumed = await node.resume_stream(stream, token(stream), now_ms=NOW_MS)
                epochs.append(resumed.key.epoch)
                known = {one.segment: one.text for one in resumed.finals}
                assert (
                    known.items()
                    >= {segment: text for segment, text in acknowledged.items() if segment in known}.items()
                )
                for segment in range(resumed.starts[0].next_segment, resumed.starts[0].next_segment + 5):
                    text = f"node {number}, epoch {resumed.key.epoch}, {segment}"
                    if not await node.keep_final(resumed.key, final(segment, text=text)):
                        break
                    assert acknowledged.setdefault(segment, text) == text, "two owners at once"
                    await asyncio.sleep(0)

        await asyncio.gather(*(own(node, number) for number, node in enumerate(nodes)))
        assert sorted(epochs) == list(range(2, 2 + len(epochs)))
        kept = {one.final.segment: one.final.text for one in await nodes[0].finals(interview)}
        assert kept == acknowledged
        assert sorted(kept) == list(range(len(kept)))
        assert len(kept) > 10
    finally:
        await nodes[0].delete_interview(interview)
        for node in nodes:
            await node.close()


async def test_requests_that_wait_are_bounded(own_mongo: Mongo) -> None:
    settings = msgspec.structs.replace(quick(own_mongo), max_waiting_writes=3)
    store = MongoStore(settings)
    await store.open()
    try:
        _, key = await begin(store)
        own_mongo.pause()
        first = asyncio.ensure_future(store.keep_final(key, final(0)))
        await asyncio.sleep(0.05)
        waiting = [asyncio.ensure_future(store.keep_final(key, final(n))) for n in range(1, 6)]
        await asyncio.sleep(0)
        refused = [one.exception() for one in waiting if one.done()]
        assert len(refused) == 2
        assert all("3 writes wait" in str(error) for error in refused)
        own_mongo.resume()
        await asyncio.gather(first, *waiting, return_exceptions=True)
        assert all([await persist(partial(store.keep_final, key, final(n))) for n in range(6)])
    finally:
        await store.close()
