"""What a run of two nodes must not leave in MongoDB and in Redis: each kind is planted, and found."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from redis.asyncio import Redis

from streamsrv.shared_state._redis.claims import CLAIM_MS
from streamsrv.stores.handoff import Lease
from streamsrv.stores.mongo.settings import MongoSettings
from streamsrv.stores.mongo.store import MongoStore
from tests.adversity.runs.leftovers import of_mongo, of_redis

NODES = 2
Documents = AsyncDatabase[dict[str, Any]]


@pytest.fixture
async def database(mongo_url: str) -> AsyncIterator[Documents]:
    """As nodes leave it that ended in order."""
    name = f"streamsrv_test_{secrets.token_hex(6)}"
    store = MongoStore(MongoSettings(url=mongo_url, database=name), node="n-1")
    await store.open()
    await store.close()
    async with AsyncMongoClient[dict[str, Any]](mongo_url) as client:
        yield client[name]
        await client.drop_database(name)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def prefix() -> str:
    return f"test-{secrets.token_hex(6)}"


async def test_nothing_is_left_when_nodes_ended_in_order(database: Documents) -> None:
    await database.jobs.insert_one({"_id": "job-1", "state": "done"})
    await database.interviews.insert_one({"_id": "talk", "status": "completed"})
    assert await of_mongo(database, NODES) == []


@pytest.mark.parametrize(
    ("room", "document", "found"),
    [
        ("leases", {"_id": "kafka/talk", "node": "n-1", "until": datetime.now(UTC)}, "lease of n-1 on kafka/talk"),
        ("jobs", {"_id": "job-1", "state": "running"}, "job job-1 is still running"),
        ("deletions", {"_id": "0a", "interview": "talk"}, "word of the end of talk"),
        ("interviews", {"_id": "talk", "status": "beginning"}, "interview talk is still beginning"),
    ],
)
async def test_an_orphan_in_mongodb_is_found(
    database: Documents, room: str, document: dict[str, Any], found: str
) -> None:
    await database[room].insert_one(document)
    assert await of_mongo(database, NODES) == [found]


async def test_a_batch_that_stays_announced_is_found(database: Documents) -> None:
    await database.meta.update_one({"_id": "place"}, {"$set": {"writing.0a": {"after": 0, "of": ["talk"]}}})
    assert await of_mongo(database, NODES) == ["batch 0a is still announced"]


async def test_more_nodes_than_there_were_are_found(database: Documents) -> None:
    await database.nodes.insert_many([{"_id": f"n-{number}", "beats": 1} for number in (2, 3)])
    assert await of_mongo(database, NODES) == ["3 nodes are known, of 2"]


async def test_a_key_that_stays_in_redis_is_found_and_one_that_goes_is_not(redis: Redis, prefix: str) -> None:
    await redis.set(f"{prefix}:speaker:st-1", "1 n-1", px=CLAIM_MS)
    await redis.set(f"{prefix}-other:speaker:st-1", "1 n-1", px=1_000_000)
    assert await of_redis(redis, prefix) == []
    await redis.set(f"{prefix}:speaker:st-2", "1 n-1")
    await redis.set(f"{prefix}:speaker:st-3", "1 n-1", px=2 * CLAIM_MS)
    await redis.set(f"{prefix}:lock:st-4", "", px=1_000)
    first, second, third = sorted(await of_redis(redis, prefix))
    assert first.startswith(f"key {prefix}:lock:st-4 goes in ")
    assert second == f"key {prefix}:speaker:st-2 stays"
    assert third.startswith(f"key {prefix}:speaker:st-3 goes in ")
    await redis.delete(*[f"{prefix}:{name}" for name in ("speaker:st-1", "speaker:st-2", "speaker:st-3", "lock:st-4")])


async def test_a_node_that_starts_again_takes_its_leases_back(database: Documents, mongo_url: str) -> None:
    """What it leased before it was killed, and nothing waits for: nobody else would ask for these leases for a day."""
    settings = MongoSettings(url=mongo_url, database=database.name)
    killed, other, again = (MongoStore(settings, node=node) for node in ("n-1", "n-2", "n-1"))
    await killed.open()
    await other.open()
    try:
        for store, node in ((killed, "n-1"), (other, "n-2")):
            assert await store.lease("kafka", f"talk of {node}", Lease(node=node, until_ms=2_000_000_000_000)) is None
        await again.open()
        assert await of_mongo(database, NODES) == ["lease of n-2 on kafka/talk of n-2"]
    finally:
        for store in (killed, other, again):
            await store.close()
