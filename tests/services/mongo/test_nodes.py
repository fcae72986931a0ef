"""Which node counts as gone, by wound clocks, and what becomes of its streams and uploads."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from pymongo.asynchronous.database import AsyncDatabase

from streamsrv.errors import NotFound
from streamsrv.stores.base import StreamKey, StreamStats
from streamsrv.stores.handoff import Completion
from streamsrv.stores.mongo.documents import Rooms
from streamsrv.stores.mongo.nodes import LOST, Nodes
from streamsrv.stores.mongo.settings import MongoSettings
from streamsrv.stores.mongo.store import MongoStore
from tests.stores.builders import NOW_MS, begin, token
from tests.stores.contract_jobs import job


class Hour:
    """A clock that is wound by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def watching(rooms: Rooms, node: str, hour: Hour) -> Nodes:
    return Nodes(rooms, node, silent_s=30, lost_s=600, clock=hour)


@pytest.fixture
def rooms(database: AsyncDatabase[dict[str, Any]]) -> Rooms:
    return Rooms(*(database[name] for name in Rooms._fields))


async def opened(settings: MongoSettings, node: str) -> MongoStore:
    store = MongoStore(settings, node=node)
    await store.open()
    return store


async def test_a_node_is_gone_after_silence_and_back_by_one_word(rooms: Rooms) -> None:
    hour = Hour()
    here, there = watching(rooms, "n-1", hour), watching(rooms, "n-2", hour)
    await there.beat()
    for _ in range(6):
        await here.look()
        assert here.silent_for(30) == []
        hour.now += 5
    await here.look()
    assert here.silent_for(30) == ["n-2"]
    await there.beat()
    await here.look()
    assert here.silent_for(0) == ["n-2"]
    assert here.silent_for(1) == []


async def test_nobody_is_silent_for_itself(rooms: Rooms) -> None:
    hour = Hour()
    here = watching(rooms, "n-1", hour)
    await here.beat()
    for _ in range(10):
        await here.look()
        hour.now += 10
    assert here.silent_for(0) == []


async def test_a_database_that_was_away_makes_nobody_look_dead(rooms: Rooms) -> None:
    """No look was possible for an hour, and no word either."""
    hour = Hour()
    here, there = watching(rooms, "n-1", hour), watching(rooms, "n-2", hour)
    await there.beat()
    await here.look()
    hour.now += 3_600
    await here.look()
    assert here.silent_for(30) == []


async def test_streams_are_left_to_their_node_while_it_lives(settings: MongoSettings, rooms: Rooms) -> None:
    one, two = await opened(settings, "n-1"), await opened(settings, "n-2")
    hour = Hour()
    third = watching(rooms, "n-3", hour)
    try:
        _, first = await begin(one, stream="s1")
        _, second = await begin(one, stream="s2")
        assert await two.left_streams() == ()
        assert await one.left_streams() == (first, second)
        # Whoever takes a stream over holds it from then on.
        resumed = (await two.resume_stream("s2", token("s2"), now_ms=NOW_MS)).key
        assert await one.left_streams() == (first,)
        assert await two.left_streams() == (resumed,)
    finally:
        await one.close()
        await two.close()
    for _ in range(8):
        await third.look()
        hour.now += 5
    assert await third.left_streams() == (first, resumed)


async def test_an_epoch_nobody_settled_can_be_ended(settings: MongoSettings, rooms: Rooms) -> None:
    """Its node died between the two steps of a takeover."""
    store = await opened(settings, "n-1")
    try:
        await begin(store)
        await rooms.streams.update_one({"_id": "s1"}, {"$inc": {"epoch": 1}})
        (left,) = await store.left_streams()
        assert left == StreamKey(interview="talk", stream="s1", epoch=2)
        assert await store.end_stream(left, stats=StreamStats(), now_ms=NOW_MS)
        interview = await store.interview("talk")
        assert interview is not None
        assert interview.status == "completed"
    finally:
        await store.close()


async def test_jobs_are_their_nodes_until_it_is_lost(settings: MongoSettings, rooms: Rooms) -> None:
    one, two = await opened(settings, "n-1"), await opened(settings, "n-2")
    hour = Hour()
    third = watching(rooms, "n-3", hour)
    try:
        _, key = await begin(one, stream="st-j")
        await one.keep_job(job("j", state="running"))
        await one.keep_job(job("over", state="done"))
        assert [found.id for found in await one.open_jobs()] == ["j"]
        assert await two.open_jobs() == ()
    finally:
        await one.close()
    try:
        for _ in range(59):
            await third.look()
            hour.now += 10
            await third.give_up()
        found = await two.job("j")
        assert found is not None
        assert found.state == "running"
        assert await third.left_streams() == ()
        for _ in range(3):
            await third.look()
            hour.now += 10
            await third.give_up()
        found = await two.job("j")
        assert found is not None
        assert (found.state, found.error) == ("failed", LOST)
        over = await two.job("over")
        assert over is not None
        assert over.state == "done"
        assert await third.left_streams() == (key,)
        assert await rooms.nodes.find_one({"_id": "n-1"}) is not None, "its stream is not ended yet"
        await two.end_stream(key, stats=StreamStats(), now_ms=NOW_MS)
        await third.give_up()
        assert await rooms.nodes.find_one({"_id": "n-1"}) is None
    finally:
        await two.close()


async def test_a_node_gives_signs_of_life_while_it_is_open(settings: MongoSettings, rooms: Rooms) -> None:
    store = MongoStore(msgspec.structs.replace(settings, node_silent_s=1.0), node="n-1")
    await store.open()
    try:
        first = await rooms.nodes.find_one({"_id": "n-1"})
        assert first is not None
        while (found := await rooms.nodes.find_one({"_id": "n-1"})) is None or found["beats"] < first["beats"] + 2:
            pass
    finally:
        await store.close()


async def test_a_job_that_another_node_deleted_is_not_recorded_again(settings: MongoSettings, rooms: Rooms) -> None:
    one, two = await opened(settings, "n-1"), await opened(settings, "n-2")
    try:
        await one.keep_job(job("j"))
        assert await two.delete_interview("talk")
        for _ in range(2):
            with pytest.raises(NotFound):
                await one.keep_job(job("j", state="running"))
        assert await one.job("j") is None
    finally:
        await one.close()
        await two.close()


async def test_an_interview_whose_last_server_died_at_the_end_is_completed(
    settings: MongoSettings, rooms: Rooms
) -> None:
    """The stream was marked ended, and then nothing more."""
    store = await opened(settings, "n-1")
    await begin(store)
    await begin(store, "other", "s2")
    await store.close()
    await rooms.streams.update_one({"_id": "s1"}, {"$set": {"status": "ended"}})
    told: asyncio.Queue[str] = asyncio.Queue()
    again = MongoStore(settings, node="n-1")
    again.hand_to(("kafka",), stored=told.put_nowait)
    await again.open()
    try:
        assert await told.get() == "talk"
        (handoff,) = (await again.waiting("kafka", "talk", limit=9)).handoffs
        assert isinstance(handoff.what, Completion)
        other = await again.interview("other")
        assert other is not None
        assert other.status == "live"
    finally:
        await again.close()


async def test_an_interview_of_a_status_nobody_here_knows_is_not_seen(settings: MongoSettings, rooms: Rooms) -> None:
    store = await opened(settings, "n-1")
    try:
        await begin(store)
        await rooms.interviews.update_one({"_id": "talk"}, {"$set": {"status": "postponed"}})
        assert await store.interview("talk") is None
        assert await store.interviews(limit=9) == ()
        await begin(store, stream="s2")
        assert len(await store.interviews(limit=9)) == 1
    finally:
        await store.close()
