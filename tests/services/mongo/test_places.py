"""Finals get their places before they can be read; who reads on behind a place misses none of them for that."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import NetworkTimeout

from streamsrv.errors import StoreUnavailable
from streamsrv.stores.base import StoredFinal, StreamKey
from streamsrv.stores.mongo import documents, places, writing
from streamsrv.stores.mongo.settings import MongoSettings
from streamsrv.stores.mongo.store import MongoStore
from tests.services.mongo.line import Line, line_to
from tests.stores.builders import begin, final

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 0.5
Database = AsyncDatabase[dict[str, Any]]
pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def line(settings: MongoSettings) -> AsyncIterator[Line]:
    async with line_to(settings.url or "") as line:
        yield line
        line.clear.set()


@pytest.fixture
async def nodes(
    settings: MongoSettings, line: Line, database: Database
) -> AsyncIterator[tuple[MongoStore, MongoStore]]:
    """One behind the line, one that is not."""
    slow = MongoStore(msgspec.structs.replace(settings, url=line.url), node="n-slow")
    near = MongoStore(settings, node="n-near")
    for node in (slow, near):
        node.hand_to(("kafka",))
        await node.open()
    yield slow, near
    line.clear.set()
    await slow.close()
    await near.close()


async def until(holds: Callable[[Any], bool], database: Database) -> None:
    """Wait for something of the counter's document."""
    async with asyncio.timeout(10):
        while not holds(await database["meta"].find_one({"_id": "place"})):  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.005)


async def held_back(slow: MongoStore, key: StreamKey, segment: int, database: Database) -> asyncio.Task[bool]:
    """A final that has its place and is not there."""
    before = await places_given(database)
    keeping = asyncio.create_task(slow.keep_final(key, final(segment)))
    await until(lambda doc: doc["last"] > before, database)
    return keeping


async def places_given(database: Database) -> int:
    doc = await database["meta"].find_one({"_id": "place"})
    assert doc is not None
    return int(doc["last"])


async def walk(store: MongoStore, place: int = 0, limit: int = 500) -> list[tuple[str, int]]:
    """All there is behind a place."""
    return [(one.stream, one.final.segment) for one in await store.finals_since("talk", place, limit=limit)]


async def handed(store: MongoStore) -> list[tuple[str, int]]:
    found = [one.what for one in (await store.waiting("kafka", "talk", limit=500)).handoffs]
    return [(one.stream, one.final.segment) for one in found if isinstance(one, StoredFinal)]


async def test_a_final_that_comes_to_light_late_is_read_in_its_place(
    nodes: tuple[MongoStore, MongoStore], line: Line, database: Database
) -> None:
    slow, near = nodes
    (_, late), (_, soon) = await begin(slow, stream="late"), await begin(near, stream="soon")
    await near.keep_final(soon, final(0))
    (first,) = await near.finals_since("talk", 0, limit=500)
    line.clear.clear()
    keeping = await held_back(slow, late, 0, database)
    await near.keep_final(soon, final(1))
    reading = asyncio.create_task(walk(near, first.place))
    await asyncio.sleep(2 * writing.PATIENCE_S)
    assert not reading.done()
    assert await walk(near) == [("soon", 0)], "what lies before is not held back"
    assert await handed(near) == [("soon", 0)]
    line.clear.set()
    assert await reading == [("late", 0), ("soon", 1)]
    assert await handed(near) == [("soon", 0), ("late", 0), ("soon", 1)]
    assert await keeping


@pytest.mark.parametrize("seed", range(5))
async def test_readers_see_every_final_once_whoever_writes(
    nodes: tuple[MongoStore, MongoStore], line: Line, seed: int
) -> None:
    chance = random.Random(seed)
    keys = [(await begin(node, stream=f"s{number}"))[1] for number, node in enumerate(nodes * 2)]

    async def speak(node: MongoStore, key: StreamKey) -> None:
        for segment in range(25):
            assert await node.keep_final(key, final(segment))
            await asyncio.sleep(chance.uniform(0.0, 0.01))

    async def hinder() -> None:
        while True:
            line.clear.clear()
            await asyncio.sleep(chance.uniform(0.0, 0.04))
            line.clear.set()
            await asyncio.sleep(chance.uniform(0.0, 0.01))

    async def read(node: MongoStore) -> list[tuple[str, int]]:
        seen: list[tuple[str, int]] = []
        place, over = 0, False
        while True:
            over = over or speaking.done()
            page = await node.finals_since("talk", place, limit=chance.randint(1, 20))
            if over and not page:
                return seen
            assert [one.place for one in page] == sorted(one.place for one in page)
            place = page[-1].place if page else place
            seen += [(one.stream, one.final.segment) for one in page]
            await asyncio.sleep(0)

    hindering = asyncio.create_task(hinder())
    speaking = asyncio.gather(*(speak(node, key) for node, key in zip(nodes * 2, keys, strict=True)))
    for seen in await asyncio.gather(*(read(node) for node in nodes)):
        assert sorted(seen) == [(key.stream, segment) for key in keys for segment in range(25)]
    hindering.cancel()
    await speaking


async def test_a_writer_that_was_killed_holds_readers_up_for_a_bounded_time(
    settings: MongoSettings, line: Line, database: Database
) -> None:
    near = MongoStore(msgspec.structs.replace(settings, timeout_s=TIMEOUT_S))
    await near.open()
    try:
        _, key = await begin(near)
        await near.keep_final(key, final(0))
        before = await places_given(database)
        line.clear.clear()
        arguments = ("-m", "tests.services.mongo.doomed", line.url, settings.database, "60")
        doomed = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        assert doomed.stdout is not None
        assert await doomed.stdout.readline() == b"begun\n"
        await until(lambda doc: doc["last"] > before, database)
        doomed.kill()
        await doomed.wait()
        await near.keep_final(key, final(1))
        begun = time.monotonic()
        assert await walk(near) == [("s1", 0)]
        assert time.monotonic() - begun < TIMEOUT_S
        (first,) = await near.finals_since("talk", 0, limit=1)
        assert await walk(near, first.place) == [("s1", 1)]
        assert TIMEOUT_S < time.monotonic() - begun < (writing.GIVEN_UP + 1) * TIMEOUT_S
        begun = time.monotonic()
        assert await walk(near) == [("s1", 0), ("s1", 1)]
        assert time.monotonic() - begun < TIMEOUT_S
        await until(lambda doc: not doc["writing"], database)
    finally:
        await near.close()


async def test_a_batch_costs_no_more_trips_for_that(
    nodes: tuple[MongoStore, MongoStore], line: Line, database: Database
) -> None:
    slow, _ = nodes
    _, key = await begin(slow)
    await slow.keep_final(key, final(0))
    await until(lambda doc: not doc["writing"], database)
    line.arm(None)
    await asyncio.gather(*(slow.keep_final(key, final(segment)) for segment in range(1, 6)))
    await until(lambda doc: not doc["writing"], database)
    batch = ["findAndModify", "insert", "find"]
    assert line.commands == [*batch, "update"]


async def test_batches_that_follow_each_other_take_the_announcements_along(
    nodes: tuple[MongoStore, MongoStore], line: Line, database: Database
) -> None:
    slow, _ = nodes
    _, key = await begin(slow)
    await slow.keep_final(key, final(0))
    line.clear.clear()
    keeping = [await held_back(slow, key, 1, database)]
    line.arm(None)
    keeping += [asyncio.create_task(slow.keep_final(key, final(segment))) for segment in range(2, 6)]
    await asyncio.sleep(0.01)
    line.clear.set()
    assert all(await asyncio.gather(*keeping))
    await until(lambda doc: not doc["writing"], database)
    assert line.commands == ["find", "findAndModify", "insert", "find", "update"]


async def test_when_an_answer_was_lost_readers_wait_until_the_final_is_stored(
    nodes: tuple[MongoStore, MongoStore], line: Line, database: Database
) -> None:
    slow, near = nodes
    (_, key), (_, soon) = await begin(slow), await begin(near, stream="soon")
    await slow.keep_final(key, final(0))
    await until(lambda doc: not doc["writing"], database)
    line.arm(2)
    with pytest.raises(StoreUnavailable):
        await slow.keep_final(key, final(1))
    assert line.broken
    line.arm(None)
    await near.keep_final(soon, final(0))
    reading = asyncio.create_task(walk(near, 1))
    await asyncio.sleep(0.1)
    assert not reading.done()
    assert await slow.keep_final(key, final(1))
    async with asyncio.timeout(2):
        assert await reading == [("s1", 1), ("soon", 0)]
    await until(lambda doc: not doc["writing"], database)


async def test_an_announcement_that_is_made_when_its_writer_gave_up_holds_nobody_up(
    nodes: tuple[MongoStore, MongoStore], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that hung does later what it was asked before."""
    _, near = nodes
    _, key = await begin(near)
    take, asked = places.take, list[dict[str, Any]]()

    async def unanswered(rooms: documents.Rooms, count: int, change: dict[str, Any]) -> int:
        asked.append({"$inc": {"last": count}, **change})
        raise NetworkTimeout("nobody knows")

    monkeypatch.setattr(places, "take", unanswered)
    with pytest.raises(StoreUnavailable):
        await near.keep_final(key, final(0))
    monkeypatch.setattr(places, "take", take)
    await near.keep_final(key, final(0))
    await until(lambda doc: not doc["writing"], database)
    await database["meta"].update_one({"_id": "place"}, asked[0])
    await near.keep_final(key, final(1))
    async with asyncio.timeout(2):
        assert await walk(near) == [("s1", 0), ("s1", 1)]
        await until(lambda doc: not doc["writing"], database)


async def test_a_writer_that_stood_still_inserts_nothing_at_old_places(
    settings: MongoSettings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers gave its batch up meanwhile, perhaps."""
    store = MongoStore(msgspec.structs.replace(settings, timeout_s=TIMEOUT_S))
    await store.open()
    try:
        _, key = await begin(store)
        take = places.take

        async def slowly(*arguments: Any) -> int:
            first = await take(*arguments)
            time.sleep(TIMEOUT_S)  # noqa: ASYNC251 - as a process does that is stopped
            return first

        monkeypatch.setattr(places, "take", slowly)
        with pytest.raises(StoreUnavailable):
            await store.keep_final(key, final(0))
        assert await database["segments"].count_documents({}) == 0
        monkeypatch.setattr(places, "take", take)
        assert await store.keep_final(key, final(0))
        assert [one.place for one in await store.finals_since("talk", 0, limit=9)] == [2]
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("count", "concerned"), [(1, False), (writing.MAX_NAMED, False), (writing.MAX_NAMED + 1, True)]
)
async def test_a_batch_holds_up_whom_it_concerns_and_all_when_those_are_many(
    settings: MongoSettings, database: Database, count: int, concerned: bool
) -> None:
    rooms = documents.rooms(database)
    await places.prepare(rooms)
    one = writing.Writing(rooms, timeout_s=5.0)
    names = [f"talk {number}" for number in range(count)]

    async def look(first: int) -> None:
        assert (await one.view(names[0])).open
        assert bool((await one.view("another")).open) == concerned

    await one.insert(names, ["key"] * count, look)


async def test_finals_newer_than_the_counter_of_a_backup_are_read(
    nodes: tuple[MongoStore, MongoStore], database: Database
) -> None:
    _, near = nodes
    _, key = await begin(near)
    for segment in range(4):
        await near.keep_final(key, final(segment))
    await database["meta"].update_one({"_id": "place"}, {"$set": {"last": 2}})
    seen = await walk(near)
    assert seen + await walk(near, len(seen)) == [("s1", segment) for segment in range(4)]
    assert await handed(near) == [("s1", segment) for segment in range(4)]


async def test_announcements_that_are_not_ours_are_given_up_too(settings: MongoSettings, database: Database) -> None:
    store = MongoStore(msgspec.structs.replace(settings, timeout_s=0.1))
    await store.open()
    try:
        _, key = await begin(store)
        await database["meta"].update_one({"_id": "place"}, {"$set": {"writing": {"x": 3, "y": {"later": 1}}}})
        await store.keep_final(key, final(0))
        assert await walk(store) == [("s1", 0)]
    finally:
        await store.close()
