"""What many turns of a relay ask at once goes to the server together, and each gets what it would have got alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from pymongo.asynchronous.database import AsyncDatabase

from streamsrv.runtime.outbox import Outbox
from streamsrv.runtime.settings import OutboxSettings
from streamsrv.stores.base import StoredFinal, StreamKey, StreamStats
from streamsrv.stores.handoff import Lease
from streamsrv.stores.mongo import relays, writing
from streamsrv.stores.mongo.settings import MongoSettings
from streamsrv.stores.mongo.store import MongoStore
from tests.services.mongo.line import line_to
from tests.stores.builders import NOW_MS, begin, final
from tests.support.sinks import ScriptedSink
from tests.support.watching import until

SINKS = ("kafka", "webhook")
Database = AsyncDatabase[dict[str, Any]]
pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def store(settings: MongoSettings, database: Database) -> AsyncIterator[MongoStore]:
    store = MongoStore(settings, node="n-one")
    store.hand_to(SINKS)
    await store.open()
    yield store
    await store.close()


async def fill(store: MongoStore, counts: dict[str, int]) -> None:
    """Interviews with so many finals each."""
    for name, count in counts.items():
        _, key = await begin(store, name, f"s-{name}")
        await asyncio.gather(*(store.keep_final(key, final(segment)) for segment in range(count)))


async def waiting(store: MongoStore, name: str, limit: int, sink: str = "kafka") -> list[int]:
    """Segments of what waits."""
    found = await store.waiting(sink, name, limit=limit)
    assert [one.place for one in found.handoffs] == sorted(one.place for one in found.handoffs)
    finals = [one.what for one in found.handoffs if isinstance(one.what, StoredFinal)]
    assert {one.stream for one in finals} <= {stream.id for stream in found.streams} <= {f"s-{name}"}
    return [one.final.segment for one in finals]


@pytest.mark.parametrize("page", [1, 7, 25, 1_000])
async def test_each_gets_its_own_however_much_the_others_have(
    store: MongoStore, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    counts = {"b": 0, "a": 3, "e": 12, "c": 30, "d": 1, "f": 5}
    await fill(store, counts)
    monkeypatch.setattr(relays, "MAX_WAITING", page)
    lone = asyncio.create_task(waiting(store, "a", 5))  # under way while the others gather
    await asyncio.sleep(0)
    limits = [("f", 10), *((name, 10) for name in counts), ("e", 4), ("nobody", 10)]
    found = await asyncio.gather(*(waiting(store, name, limit) for name, limit in limits))
    for (name, limit), segments in zip(limits, found, strict=True):
        assert segments == list(range(min(counts.get(name, 0), limit, page))), name
    assert await lone == list(range(min(3, page)))


async def test_a_spoilt_document_is_the_trouble_of_its_own_interview(store: MongoStore, database: Database) -> None:
    await fill(store, {"sound": 3, "spoilt": 2, "other": 1})
    await database.streams.update_one({"_id": "s-spoilt"}, {"$unset": {"options": 1, "epochs": 1, "order": 1}})
    names = ("sound", "spoilt", "other")
    sound, spoilt, other = await asyncio.gather(*(waiting(store, one, 10) for one in names), return_exceptions=True)
    assert (sound, other) == ([0, 1, 2], [0])
    assert isinstance(spoilt, Exception)


async def test_marks_made_together_are_each_of_one_sink(store: MongoStore) -> None:
    names = ["a", "b", "c"]
    await fill(store, dict.fromkeys(names, 4))
    places: dict[tuple[str, str], list[int]] = {}
    for sink in SINKS:
        for name in names:
            found = await store.waiting(sink, name, limit=9)
            places[sink, name] = [one.place for one in found.handoffs]
    await asyncio.gather(
        store.handed("kafka", "a", places["kafka", "a"][:2]),
        store.handed("webhook", "b", places["webhook", "b"]),
        store.handed("webhook", "c", places["kafka", "c"]),  # what another sink calls them
        store.handed("kafka", "c", places["kafka", "b"]),  # another interview's
    )
    left = {(sink, name): await waiting(store, name, 9, sink) for sink in SINKS for name in names}
    whole = [0, 1, 2, 3]
    assert left == dict.fromkeys(left, whole) | {("kafka", "a"): [2, 3], ("webhook", "b"): []}


async def test_marks_find_what_another_process_read(store: MongoStore, settings: MongoSettings) -> None:
    await fill(store, {"a": 3, "b": 2})
    for name in ("a", "b"):
        key = StreamKey(interview=name, stream=f"s-{name}", epoch=1)
        await store.end_stream(key, stats=StreamStats(), now_ms=NOW_MS)
    places = {name: [one.place for one in (await store.waiting("kafka", name, limit=9)).handoffs] for name in "ab"}
    assert {name: len(found) for name, found in places.items()} == {"a": 4, "b": 3}
    other = MongoStore(settings, node="n-two")
    await other.open()
    try:
        await asyncio.gather(*(other.handed("kafka", name, found) for name, found in places.items()))
    finally:
        await other.close()
    assert await store.due("kafka", limit=9) == ()
    assert await store.due("webhook", limit=9) == ("a", "b")


async def test_leases_wanted_together_are_each_judged_alone(store: MongoStore, settings: MongoSettings) -> None:
    other = MongoStore(settings, node="n-two")
    await other.open()
    try:
        theirs = Lease(node="n-two", until_ms=NOW_MS)
        assert await other.lease("kafka", "b", theirs) is None
        assert await other.lease("kafka", "c", theirs) is None
        mine = Lease(node="n-one", until_ms=NOW_MS + 1)
        wishes = [("a", None), ("b", None), ("c", theirs), ("d", theirs), ("a", None)]
        lone = asyncio.create_task(store.lease("kafka", "z", mine))
        await asyncio.sleep(0)
        found = await asyncio.gather(*(store.lease("kafka", name, mine, over=over) for name, over in wishes))
        assert found == [None, theirs, None, None, None]
        assert await lone is None
        await asyncio.gather(*(store.release("kafka", name, node="n-one") for name in "abcd"))
        held = [await other.lease("kafka", name, msgspec.structs.replace(theirs, until_ms=5)) for name in "abcdz"]
        assert held == [None, None, None, None, mine]
    finally:
        await other.close()


async def last_place(database: Database) -> int:
    doc = await database["meta"].find_one({"_id": "place"})
    assert doc is not None
    return int(doc["last"])


async def test_an_interview_that_must_wait_holds_up_no_other(
    store: MongoStore, settings: MongoSettings, database: Database
) -> None:
    async with line_to(settings.url or "") as line:
        slow = MongoStore(msgspec.structs.replace(settings, url=line.url), node="n-slow")
        slow.hand_to(SINKS)
        await slow.open()
        try:
            await fill(store, {"a": 2, "b": 2})
            _, key = await begin(slow, "b", "s-late")
            assert await slow.keep_final(key, final(0))
            before = await last_place(database)
            line.clear.clear()
            late = asyncio.create_task(slow.keep_final(key, final(1)))
            async with asyncio.timeout(10):
                while await last_place(database) == before:  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0.005)
            begun = time.monotonic()
            held = asyncio.create_task(store.waiting("kafka", "b", limit=9))
            assert await waiting(store, "a", 9) == [0, 1]
            assert time.monotonic() - begun < writing.PATIENCE_S
            assert (await held).handoffs
            assert time.monotonic() - begun >= writing.PATIENCE_S
            line.clear.set()
            assert await late
        finally:
            line.clear.set()
            await slow.close()


async def test_a_backlog_of_many_short_interviews_costs_few_trips(
    store: MongoStore, settings: MongoSettings, database: Database
) -> None:
    names = [f"i{number:03}" for number in range(96)]
    await fill(store, dict.fromkeys(names, 2))
    async with line_to(settings.url or "") as line:
        node = MongoStore(msgspec.structs.replace(settings, url=line.url), node="n-late")
        sink = ScriptedSink()
        outbox = Outbox(node, [sink], OutboxSettings(poll_s=60.0), CollectorRegistry())
        await node.open()
        line.arm(None)
        outbox.start()
        await until(lambda: len(sink.got) == 2 * len(names))
        await outbox.close()
        spent = len(line.commands)
        await node.close()
    assert all(sink.segments(name) == [0, 1] for name in names)
    assert await store.due("kafka", limit=9) == ()
    assert spent < 4 * len(names), "each had nine trips of its own before"
