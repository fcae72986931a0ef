"""A request whose answer is lost was done, or was not: the same call again gives what it would have given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from pymongo.asynchronous.database import AsyncDatabase

from streamsrv.errors import StoreUnavailable
from streamsrv.stores.base import Anchor, StreamKey, StreamStats
from streamsrv.stores.handoff import Deletion, Lease, Outgoing
from streamsrv.stores.mongo.settings import MongoSettings
from streamsrv.stores.mongo.store import MongoStore
from tests.services.mongo.line import Line, line_to
from tests.stores.builders import NOW_MS, begin, final, token
from tests.stores.contract_jobs import job

SINKS = ("kafka", "webhook")
MOST_REPLIES = 40
Call = Callable[[MongoStore, StreamKey], Awaitable[object]]


@pytest.fixture
async def line(settings: MongoSettings) -> AsyncIterator[Line]:
    async with line_to(settings.url or "") as line:
        yield line


async def _begin(store: MongoStore, key: StreamKey) -> object:
    return await begin(store, stream="s2")


async def _keep(store: MongoStore, key: StreamKey) -> object:
    return await store.keep_final(key, final(1))


async def _progress(store: MongoStore, key: StreamKey) -> object:
    return await store.keep_progress(key, (1_920,), (Anchor(position=5, utc_ms=NOW_MS),))


async def _end(store: MongoStore, key: StreamKey) -> object:
    return await store.end_stream(key, stats=StreamStats(silence_ms=(3,)), now_ms=NOW_MS + 7)


async def _job(store: MongoStore, key: StreamKey) -> object:
    await store.keep_job(job("j"))
    return None


async def _handed(store: MongoStore, key: StreamKey) -> object:
    found = (await store.waiting("kafka", "talk", limit=9)).handoffs
    await store.handed("kafka", "talk", [one.place for one in found])
    return None


async def _lease(store: MongoStore, key: StreamKey) -> object:
    return await store.lease("kafka", "talk", Lease(node="a", until_ms=10))


async def _delete(store: MongoStore, key: StreamKey) -> object:
    await store.delete_interview("talk")
    return None


async def _resume(store: MongoStore, key: StreamKey) -> object:
    """Each attempt may take one more epoch; where it goes on is the same."""
    resumed = await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)
    assert resumed.stream.epochs[-1].epoch == resumed.key.epoch
    return resumed.starts, resumed.finals


CALLS: dict[str, Call] = {
    name.removeprefix("_"): call
    for name, call in list(globals().items())
    if name in ("_begin", "_keep", "_progress", "_end", "_job", "_handed", "_lease", "_delete", "_resume")
}


async def _state(store: MongoStore, *, epochs: bool) -> object:
    """All there is, as readers see it, but for what was tried more than once."""
    streams = await store.streams("talk")
    return (
        await store.interview("talk"),
        tuple(msgspec.structs.replace(one, epochs=one.epochs if epochs else ()) for one in streams),
        await store.finals("talk"),
        [[_timeless(one.what) for one in (await store.waiting(sink, "talk", limit=99)).handoffs] for sink in SINKS],
        await store.open_jobs(),
        [left.stream for left in await store.left_streams()],
    )


def _timeless(what: Outgoing) -> Outgoing:
    """Without when it was deleted, which the store's own clock told."""
    return msgspec.structs.replace(what, deleted_ms=0) if isinstance(what, Deletion) else what


async def _prepared(settings: MongoSettings) -> tuple[MongoStore, StreamKey]:
    store = MongoStore(settings, node="n-1")
    store.hand_to(SINKS)
    await store.open()
    _, key = await begin(store)
    await store.keep_final(key, final(0))
    return store, key


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.timeout(120)
async def test_each_answer_may_be_lost(
    name: str, settings: MongoSettings, line: Line, database: AsyncDatabase[dict[str, Any]]
) -> None:
    call, epochs = CALLS[name], name != "resume"
    store, key = await _prepared(settings)
    expected = await call(store, key)
    undisturbed = await _state(store, epochs=epochs)
    await store.close()
    through = msgspec.structs.replace(settings, url=line.url)
    for number in range(1, MOST_REPLIES):
        await database.client.drop_database(settings.database)
        store, key = await _prepared(through)
        try:
            line.arm(number)
            answer = await _persistently(lambda store=store, key=key: call(store, key))  # type: ignore[misc]
            lost = line.broken
            line.arm(None)
            assert (answer, await _state(store, epochs=epochs)) == (expected, undisturbed), f"reply {number}"
        finally:
            await store.close()
        if not lost:
            assert number > 1
            return
    raise AssertionError(f"more than {MOST_REPLIES} replies")


async def _persistently(call: Callable[[], Awaitable[object]]) -> object:
    while True:
        try:
            return await call()
        except StoreUnavailable:
            continue
