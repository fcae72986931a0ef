"""The start: a server that is away, comes late, refuses us, or is none; and what must be there before words come."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import NotPrimaryError, OperationFailure, ServerSelectionTimeoutError

from streamsrv.errors import SetupError
from streamsrv.stores.mongo import client, failures
from streamsrv.stores.mongo.documents import rooms
from streamsrv.stores.mongo.settings import MongoSettings
from streamsrv.stores.mongo.store import MongoStore
from tests.services.mongo.line import line_to
from tests.services.servers import Mongo, free_port, mongo_server


async def test_the_start_waits_for_a_server_that_is_away(tmp_path: Path) -> None:
    with mongo_server(tmp_path / "mongo") as server:
        store = MongoStore(MongoSettings(url=server.url, database=server.database, timeout_s=0.3, start_within_s=30))
        opening = asyncio.create_task(store.open())
        await asyncio.sleep(0.5)
        assert not opening.done()
        await asyncio.to_thread(server.start)
        await opening
        await store.close()
        await asyncio.to_thread(server.forget, server.database)


async def test_a_server_that_goes_away_in_the_middle_of_the_start_is_waited_for(settings: MongoSettings) -> None:
    """Whichever answer is lost."""
    async with line_to(settings.url or "") as line:
        for number in itertools.count(1):
            store = MongoStore(msgspec.structs.replace(settings, url=line.url))
            line.arm(number)
            await store.open()
            await store.close()
            if not line.broken:
                break
    assert number > 10, "so many requests a start makes"


async def test_it_does_not_wait_for_ever_and_names_the_remedy() -> None:
    settings = MongoSettings(
        url=f"mongodb://user:secret-word@127.0.0.1:{free_port()}/", timeout_s=0.2, start_within_s=0.5
    )
    with pytest.raises(SetupError) as refused:
        await MongoStore(settings).open()
    assert "within 0.5 s" in str(refused.value)
    assert "mongo.url" in refused.value.hint
    assert "secret-word" not in f"{refused.value} {refused.value.hint}"


@pytest.mark.parametrize(
    "url",
    ["mongodb://", "mongodb://user:pass:word@host/", "mongodb://host/?w=majority&unknownThing=%", "mongodb://h:x"],
)
def test_an_address_that_is_none_is_refused_without_being_told(url: str) -> None:
    with pytest.raises(SetupError) as refused:
        MongoStore(MongoSettings(url=url))
    assert "mongo.url" in str(refused.value)
    assert "pass:word" not in f"{refused.value} {refused.value.hint}"


def test_what_the_driver_says_becomes_ours() -> None:
    refused = OperationFailure("Authentication failed for user 'name'", code=18)
    assert failures.hopeless(refused)
    told = failures.unusable(refused, 5)
    assert "refuses the user" in told.message
    assert "name" not in told.message
    for error in (NotPrimaryError("gone"), ServerSelectionTimeoutError("host:1 away")):
        assert not failures.hopeless(error)
        away = failures.unavailable(error)
        assert away.retryable
        assert "host" not in away.message
    assert "rights" in failures.unavailable(OperationFailure("not allowed on db", code=13)).hint


async def test_writes_are_a_majoritys_and_reads_the_primarys(settings: MongoSettings) -> None:
    """Whatever the address says."""
    address = f"{settings.url}?w=0&readPreference=secondary&journal=false"
    store = MongoStore(MongoSettings(url=address))
    segments = store._rooms.segments
    assert segments.write_concern.document == {"w": "majority", "j": True}
    assert segments.read_preference.mode == 0
    await store.close()


async def test_the_indexes_are_made(settings: MongoSettings, database: AsyncDatabase[dict[str, Any]]) -> None:
    store = MongoStore(settings)
    await store.open()
    await store.close()
    for name, wanted in client.INDEXES.items():
        there = await database[name].index_information()
        keys = [[tuple(key) for key in index["key"]] for index in there.values()]
        for index in wanted:
            assert list(index.document["key"].items()) in keys, name
    scheduled = [("status", 1), ("scheduledAt", 1)]
    assert scheduled in [list(index.document["key"].items()) for index in client.INDEXES["interviews"]]
    assert set(client.INDEXES) <= set(rooms(database)._fields)


@pytest.mark.usefixtures("database")
async def test_a_store_is_closed_at_once_whatever_it_was_about(settings: MongoSettings) -> None:
    """The driver takes a cancellation in mid-request for a failure of the network."""
    for steps in range(12):
        store = MongoStore(settings)
        await store.open()
        for _ in range(steps):
            await asyncio.sleep(0.0005)
        async with asyncio.timeout(5):
            await store.close()


async def test_an_opening_that_is_called_off_ends_at_once(own_mongo: Mongo) -> None:
    own_mongo.pause()
    for wait_s in (0.0, 0.01, 0.05, 0.3):
        store = MongoStore(
            MongoSettings(url=own_mongo.url, database=own_mongo.database, timeout_s=5, start_within_s=60)
        )
        opening = asyncio.create_task(store.open())
        await asyncio.sleep(wait_s)
        opening.cancel()
        await asyncio.wait([opening], timeout=3)
        assert opening.cancelled()
