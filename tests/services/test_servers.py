"""The services keep what the tests lean on: what was acknowledged is there after a crash, a hang only hangs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from pymongo import AsyncMongoClient, ReturnDocument
from pymongo.errors import NetworkTimeout
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisLost
from redis.exceptions import TimeoutError as RedisTimeout

from tests.services.servers import KafkaServer, MongoServer, RedisServer

Client: TypeAlias = AsyncMongoClient[dict[str, Any]]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


async def test_redis_keeps_what_it_acknowledged(own_redis: RedisServer) -> None:
    async with Redis.from_url(own_redis.url, socket_timeout=0.5, retry=Retry(NoBackoff(), 0)) as redis:
        for number in range(100):
            await redis.xadd("stream", {"n": number})
        own_redis.kill()
        await asyncio.to_thread(own_redis.start)
        with pytest.raises(RedisLost):
            await redis.xlen("stream")  # over the connection that died
        assert await redis.xlen("stream") == 100
        own_redis.pause()
        with pytest.raises(RedisTimeout):
            await redis.xlen("stream")
        own_redis.resume()
        assert await redis.xlen("stream") == 100


async def test_mongo_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    """The stand-in itself, whatever ``MONGO_URL`` names: the other tests kill it and count on that."""
    with MongoServer(tmp_path / "mongo") as server:
        await _mongo_keeps(server.start())


async def _mongo_keeps(own_mongo: MongoServer) -> None:
    client: Client = AsyncMongoClient(own_mongo.url, socketTimeoutMS=500, retryWrites=False)
    async with client:
        numbers = client["test"]["numbers"]
        for number in range(100):
            await numbers.insert_one({"_id": number})
        own_mongo.kill()
        await asyncio.to_thread(own_mongo.start)
        assert await numbers.count_documents({}) == 100
        own_mongo.pause()
        with pytest.raises(NetworkTimeout):
            await numbers.count_documents({})
        own_mongo.resume()
        assert await numbers.count_documents({}) == 100


async def test_mongo_changes_one_document_at_a_time(mongo_url: str) -> None:
    """What epochs and leases stand on."""
    client: Client = AsyncMongoClient(mongo_url, retryWrites=False)
    async with client:
        counters = client["streamsrv_test_servers"]["counters"]
        await counters.drop()
        await counters.insert_one({"_id": "c", "n": 0})

        async def add() -> list[int]:
            found = [
                await counters.find_one_and_update(
                    {"_id": "c"}, {"$inc": {"n": 1}}, return_document=ReturnDocument.AFTER
                )
                for _ in range(20)
            ]
            return [one["n"] for one in found if one is not None]

        seen = await asyncio.gather(*(add() for _ in range(16)))
        assert sorted(number for some in seen for number in some) == list(range(1, 321))
        await client.drop_database("streamsrv_test_servers")


async def test_kafka_keeps_what_it_acknowledged(own_kafka: KafkaServer) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=own_kafka.url, enable_idempotence=True)
    await producer.start()
    try:
        for number in range(100):
            await producer.send_and_wait("test", str(number).encode(), partition=0)
        own_kafka.kill()
        await asyncio.to_thread(own_kafka.start)
        await producer.send_and_wait("test", b"100", partition=0)
    finally:
        await producer.stop()
    consumer = AIOKafkaConsumer(bootstrap_servers=own_kafka.url, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition("test", 0)])
        read = [int((await consumer.getone()).value or b"") for _ in range(101)]
    finally:
        await consumer.stop()
    assert read == list(range(101))
