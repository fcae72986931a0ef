"""Two versions on one database at once: each reads what the other wrote, and keeps what it does not know."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS
from pymongo.asynchronous.database import AsyncDatabase

from streamsrv.errors import SetupError
from streamsrv.stores.base import Anchor, StreamKey, StreamStats
from streamsrv.stores.handoff import Lease
from streamsrv.stores.mongo.documents import SCHEMA
from streamsrv.stores.mongo.settings import MongoSettings
from streamsrv.stores.mongo.store import MongoStore
from tests.stores.builders import NOW_MS, begin, final, texts, token
from tests.stores.contract_jobs import job

ROOT = Path(__file__).parents[3]
Database = AsyncDatabase[dict[str, Any]]
FINALS = 40


@asynccontextmanager
async def neighbour(settings: MongoSettings, stream: str) -> AsyncIterator[Process]:
    arguments = ("-m", "tests.services.mongo.neighbour", settings.url or "", settings.database, stream)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def beside(store: MongoStore, other: Process, key: StreamKey, segment: int) -> int:
    """Keep finals while the neighbour does, from this segment on; how many it kept."""
    assert other.stdin is not None
    assert other.stdout is not None
    assert await other.stdout.readline() == b"writing\n"
    for number in range(segment, segment + FINALS):
        assert await store.keep_final(key, final(number, text=f"this {number}"))
    other.stdin.write(b"enough\n")
    return int(await other.stdout.readline())


async def test_the_next_version_and_this_one_write_at_the_same_time_and_take_each_other_over(
    settings: MongoSettings, database: Database
) -> None:
    store = MongoStore(settings, node="n-1")
    await store.open()
    try:
        _, key = await begin(store)
        async with neighbour(settings, "s1") as other:
            first = await beside(store, other, key, 0)
            assert other.stdin is not None
            other.stdin.write(b"take it\n")
            newer = await store.resume_stream("s-newer", token("s-newer"), now_ms=NOW_MS)
            assert newer.starts[0].next_segment == first
            second = await beside(store, other, newer.key, first)
        assert not await store.keep_final(key, final(FINALS + second, text="late"))
        assert await texts(store) == [
            *(f"this {n}" for n in range(FINALS)),
            *(f"newer {n}" for n in range(FINALS, FINALS + second)),
            *(f"newer {n}" for n in range(first)),
            *(f"this {n}" for n in range(first, first + FINALS)),
        ]
        found = [doc["text"].split()[0] async for doc in database["segments"].find().sort("place")]
        assert sum(one != two for one, two in pairwise(found)) > 4, "they wrote in between each other"
        resumed = await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)
        assert resumed.starts[0].next_segment == FINALS + second
        assert await store.keep_final(resumed.key, final(FINALS + second, text="this, again"))
        assert [one.id for one in await store.streams("talk")] == ["s1", "s-newer"]
        assert await store.keep_progress(newer.key, (1_920,), (Anchor(position=0, utc_ms=NOW_MS),))
        assert await store.end_stream(newer.key, stats=StreamStats(), now_ms=NOW_MS)
        stream = await database["streams"].find_one({"_id": "s-newer"})
        assert stream is not None
        assert stream["options"]["dialect"] == "northern"
        assert await database["segments"].count_documents({"mood": "calm"}) == first + second
    finally:
        await store.close()
    again = MongoStore(settings, node="n-1")
    await again.open()
    await again.close()


async def test_a_lease_that_the_release_before_wrote_is_watched_too(
    settings: MongoSettings, database: Database
) -> None:
    """It wrote when the lease ends, by its own clock."""
    store, mine = MongoStore(settings), Lease(node="b", until_ms=NOW_MS)
    await store.open()
    try:
        for until_ms in (5, 6):
            held = {"node": "a", "until": DatetimeMS(until_ms)}
            await database["leases"].update_one({"_id": "kafka/talk"}, {"$set": held}, upsert=True)
            assert await store.lease("kafka", "talk", mine, over=Lease(node="a", until_ms=4)) == Lease(
                node="a", until_ms=until_ms
            )
        assert await store.lease("kafka", "talk", mine, over=Lease(node="a", until_ms=6)) is None
        assert await store.lease("kafka", "talk", Lease(node="a", until_ms=7)) == mine
        assert await database["leases"].count_documents({"until": DatetimeMS(NOW_MS)}) == 1
    finally:
        await store.close()


async def test_what_is_not_known_is_kept(settings: MongoSettings, database: Database) -> None:
    store = MongoStore(settings)
    store.hand_to(("kafka",))
    await store.open()
    try:
        _, key = await begin(store)
        await store.keep_job(job("j"))
        for room in ("interviews", "streams", "jobs"):
            await database[room].update_many({}, {"$set": {"later": {"more": 1}, "schema": 2}})
        await store.keep_progress(key, (0,), (Anchor(position=0, utc_ms=NOW_MS),))
        await store.keep_final(key, final(0))
        await database["segments"].update_many({}, {"$set": {"later": {"more": 1}}})
        (waiting,) = (await store.waiting("kafka", "talk", limit=9)).handoffs
        await store.refused("kafka", "talk", waiting.place, reason="no", dead=True, now_ms=NOW_MS)
        await store.retry()
        await store.handed("kafka", "talk", [waiting.place])
        resumed = await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)
        await store.end_stream(resumed.key, stats=StreamStats(), now_ms=NOW_MS)
        await begin(store, stream="s2")
        await store.keep_job(job("j", state="done"))
        for room in ("interviews", "streams", "jobs", "segments"):
            found = await database[room].find_one({"later.more": 1})
            assert found is not None, room
    finally:
        await store.close()


async def test_fields_an_older_version_did_not_write_have_defaults(settings: MongoSettings, database: Database) -> None:
    store = MongoStore(settings)
    await store.open()
    try:
        _, key = await begin(store)
        await store.keep_final(key, final(0))
        await store.keep_job(job("j"))
        await database["interviews"].update_many({}, {"$unset": {"revision": "", "schema": ""}})
        gone = {"anchors": "", "node": "", "schema": "", "options.record": "", "options.shortest_ms": ""}
        await database["streams"].update_many({}, {"$unset": gone})
        late = {"language": "", "failed": "", "latency_ms": "", "endpoint_ms": "", "words": "", "schema": ""}
        await database["segments"].update_many({}, {"$unset": late})
        await database["jobs"].update_many({}, {"$unset": {"warnings": "", "attempts": "", "error": "", "schema": ""}})
        assert await texts(store) == ["segment 0"]
        assert (await store.streams("talk"))[0].anchors == ()
        assert await store.job("j") is not None
        assert await store.left_streams() == (key,), "a stream of no node has none that lives"
        resumed = await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)
        await store.keep_progress(resumed.key, (0,), (Anchor(position=0, utc_ms=NOW_MS),))
        await store.end_stream(resumed.key, stats=StreamStats(), now_ms=NOW_MS)
        assert (await store.streams("talk"))[0].anchors == (Anchor(position=0, utc_ms=NOW_MS),)
        (listed,) = await store.interviews(limit=9)
        assert (listed.interview.status, listed.streams) == ("completed", 1)
    finally:
        await store.close()


async def test_an_interview_somebody_scheduled_is_seen_and_begun(settings: MongoSettings, database: Database) -> None:
    """Other programs of the house write them, with two fields and a date."""
    store = MongoStore(settings)
    await store.open()
    try:
        await database["interviews"].insert_one(
            {"_id": "talk", "status": "scheduled", "scheduledAt": DatetimeMS(NOW_MS + 5), "title": "theirs"}
        )
        found = await store.interview("talk")
        assert found is not None
        assert (found.status, found.scheduled_ms) == ("scheduled", NOW_MS + 5)
        _, key = await begin(store)
        await store.end_stream(key, stats=StreamStats(), now_ms=NOW_MS)
        found = await store.interview("talk")
        assert found is not None
        assert (found.status, found.scheduled_ms, found.started_ms) == ("completed", NOW_MS + 5, NOW_MS)
        kept = await database["interviews"].find_one({"_id": "talk"})
        assert kept is not None
        assert kept["title"] == "theirs"
    finally:
        await store.close()


@pytest.mark.parametrize(("ahead", "opens"), [(0, True), (1, True), (2, False)])
async def test_a_database_from_the_future_is_refused_unchanged(
    settings: MongoSettings, database: Database, ahead: int, opens: bool
) -> None:
    version = {"_id": "schema", "version": SCHEMA + ahead}
    await database["meta"].insert_one(version)
    store = MongoStore(settings)
    if opens:
        await store.open()
        await store.close()
        assert await database["meta"].find_one({"_id": "schema"}) == version
        return
    with pytest.raises(SetupError, match=f"version {SCHEMA + 2}") as refused:
        await store.open()
    assert "later" in refused.value.hint
    assert await database["meta"].find({}).to_list() == [version]
    assert await database.list_collection_names() == ["meta"]
