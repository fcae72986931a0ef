"""Two nodes at once on one interview, and marks that must not be mixed up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pymongo.asynchronous.database import AsyncDatabase

from streamsrv.errors import NotFound
from streamsrv.stores.base import StreamStats
from streamsrv.stores.mongo.settings import MongoSettings
from streamsrv.stores.mongo.store import MongoStore
from tests.stores.builders import NOW_MS, begin, final

Database = AsyncDatabase[dict[str, Any]]


@pytest.fixture
async def nodes(settings: MongoSettings, database: Database) -> AsyncIterator[list[MongoStore]]:
    found = [MongoStore(settings, node=f"n-{number}") for number in range(2)]
    for node in found:
        node.hand_to(("kafka", "webhook"))
        await node.open()
    yield found
    for node in found:
        await node.close()


@pytest.mark.parametrize("late_ms", range(0, 8))
async def test_an_interview_is_live_while_one_of_its_streams_is(nodes: list[MongoStore], late_ms: int) -> None:
    """One node ends the last stream while the other begins the next."""
    one, two = nodes
    _, key = await begin(one, stream="s0")
    for number in range(1, 12):

        async def late(number: int = number) -> None:
            await asyncio.sleep(late_ms / 1_000)
            await begin(two, stream=f"s{number}")

        await asyncio.gather(one.end_stream(key, stats=StreamStats(), now_ms=NOW_MS), late())
        found = await one.interview("talk")
        assert found is not None
        assert found.status == "live", number
        key = (await two.left_streams())[0]
    assert await one.end_stream(key, stats=StreamStats(), now_ms=NOW_MS)
    found = await one.interview("talk")
    assert found is not None
    assert found.status == "completed"


async def test_the_place_one_sink_was_told_marks_nothing_of_another(nodes: list[MongoStore]) -> None:
    store = nodes[0]
    _, key = await begin(store)
    await store.keep_final(key, final(0))
    (kafka,) = (await store.waiting("kafka", "talk", limit=9)).handoffs
    (webhook,) = (await store.waiting("webhook", "talk", limit=9)).handoffs
    assert kafka.place != webhook.place
    await store.handed("webhook", "talk", [kafka.place])
    await store.handed("kafka", "talk", [webhook.place])
    for sink in ("kafka", "webhook"):
        assert len((await store.waiting(sink, "talk", limit=9)).handoffs) == 1


async def test_a_final_on_its_way_into_a_doomed_interview_leaves_nothing(
    nodes: list[MongoStore], database: Database
) -> None:
    """Its stream was taken from its owner, and is not deleted yet; also one that ended before."""
    one, two = nodes
    _, live = await begin(one)
    _, ended = await begin(one, stream="s2")
    await one.end_stream(ended, stats=StreamStats(), now_ms=NOW_MS)
    await database["interviews"].update_one({"_id": "talk"}, {"$set": {"deletedAt": 1}})
    await database["streams"].update_many({}, {"$set": {"doomed": True}, "$inc": {"epoch": 1}})
    for key in (live, ended):
        with pytest.raises(NotFound):
            await two.keep_final(key, final(0))
    assert await database["segments"].count_documents({}) == 0


async def test_deleting_takes_streams_from_their_owners_first(
    nodes: list[MongoStore], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first final goes, so that none comes behind."""
    one, two = nodes
    _, key = await begin(one)
    await one.keep_final(key, final(0))
    from streamsrv.stores.mongo import deletes

    bite = deletes._bite_away
    answers: list[object] = []

    async def late(*arguments: Any) -> None:
        await bite(*arguments)
        answers.extend(await asyncio.gather(two.keep_final(key, final(len(answers) + 1)), return_exceptions=True))

    monkeypatch.setattr(deletes, "_bite_away", late)
    assert await one.delete_interview("talk")
    assert [type(answer) for answer in answers] == [NotFound, NotFound]
    assert await database["segments"].count_documents({}) == 0


async def test_a_stream_that_begins_between_look_and_mark_keeps_the_interview_live(
    nodes: list[MongoStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamsrv.stores.mongo import places

    one, two = nodes
    _, key = await begin(one)
    take = places.take
    begun: list[str] = []

    async def interrupted(*arguments: Any) -> int:
        if not begun:
            begun.append("s2")
            await begin(two, stream="s2")
        return await take(*arguments)

    monkeypatch.setattr(places, "take", interrupted)
    assert await one.end_stream(key, stats=StreamStats(), now_ms=NOW_MS)
    assert begun
    found = await one.interview("talk")
    assert found is not None
    assert found.status == "live"
