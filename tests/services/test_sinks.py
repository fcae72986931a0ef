"""Kafka and Redis Streams as sinks, against the real ones and against a broker that fails on demand."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from redis.asyncio import Redis

from streamsrv.sinks.base import Outcome, Record
from streamsrv.sinks.kafka import KafkaSink
from streamsrv.sinks.redis_streams import RedisStreamsSink
from streamsrv.sinks.settings import KafkaSettings, RedisStreamsSettings
from tests.services.mock_cluster import (
    AGAINST_POLICY,
    BAD_TIMESTAMP,
    INVALID_RECORD,
    NOT_LEADER,
    TIMED_OUT,
    TOO_LARGE,
    TOPIC_FORBIDDEN,
    MockCluster,
)
from tests.services.servers import KafkaServer, RedisServer
from tests.sinks.records import record, records

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


async def everything(bootstrap: str, topic: str) -> list[Any]:
    """All records of a topic, by partition and offset."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        if not partitions:
            partitions = [TopicPartition(topic, number) for number in await _partitions(consumer, topic)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        found: list[Any] = []
        while any([await consumer.position(one) < ends[one] for one in partitions]):
            for some in (await consumer.getmany(timeout_ms=500)).values():
                found += some
        return sorted(found, key=lambda one: (one.partition, one.offset))
    finally:
        await consumer.stop()


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> list[int]:
    await consumer._client._wait_on_metadata(topic)
    return sorted(consumer.partitions_for_topic(topic) or ())


def ids(found: list[Any]) -> list[str]:
    return [dict(one.headers)["id"].decode() for one in found]


def kafka(bootstrap: str, topic: str, timeout_s: float = 20.0) -> KafkaSink:
    return KafkaSink(KafkaSettings(bootstrap=(bootstrap,), topic=topic, timeout_s=timeout_s))


def new_topic() -> str:
    return f"streamsrv-test-{secrets.token_hex(4)}"


# --- Kafka --------------------------------------------------------------------------------------------------------


async def test_kafka_keeps_each_interview_in_order(kafka_bootstrap: str) -> None:
    topic = new_topic()
    sink = kafka(kafka_bootstrap, topic)
    try:
        names = [f"t-{number}" for number in range(8)]
        for _ in range(2):
            batches = [sink.send(records(50, interview=name)) for name in names]
            assert await asyncio.gather(*batches) == [Outcome(taken=50)] * 8
    finally:
        await sink.close()
    found = await everything(kafka_bootstrap, topic)
    assert len(found) == 800
    for name in names:
        mine = [one for one in found if one.key == name.encode()]
        assert len({one.partition for one in mine}) == 1
        assert ids(mine) == [one.id for one in records(50, interview=name)] * 2
        assert [one.value for one in mine[:50]] == [one.body for one in records(50, interview=name)]
        headers = dict(mine[0].headers)
        assert (headers["type"], headers["content-type"]) == (b"transcript.final", b"application/json")


async def test_a_record_too_large_for_the_producer_is_refused_and_those_before_it_are_there(
    kafka_bootstrap: str,
) -> None:
    topic = new_topic()
    sink = kafka(kafka_bootstrap, topic)
    try:
        outcome = await sink.send([record(0), record(1), record(2, size=1_200_000), record(3)])
        assert (outcome.taken, outcome.verdict, outcome.reason) == (2, "refused", "MessageSizeTooLargeError")
        assert await sink.send([record(3)]) == Outcome(taken=1)
    finally:
        await sink.close()
    assert ids(await everything(kafka_bootstrap, topic)) == [record(n).id for n in (0, 1, 3)]


async def test_a_record_too_large_for_the_broker_is_refused_alone(own_kafka: KafkaServer) -> None:
    """The broker refuses a whole batch; sent alone, the others get through, with the producer made anew."""
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=own_kafka.url)
    await admin.start()
    small = NewTopic("small", 1, 1, topic_configs={"max.message.bytes": "4000"})
    await admin.create_topics([small])
    await admin.close()
    sink = kafka(own_kafka.url, "small")
    try:
        batch = [record(0), record(1, size=6_000), record(2)]
        outcome = await sink.send(batch)
        assert (outcome.taken, outcome.verdict) in ((0, "refused"), (1, "refused"))
        assert await sink.send([batch[0]]) == Outcome(taken=1)
        assert (await sink.send([batch[1]])).verdict == "refused"
        assert await sink.send([batch[2]]) == Outcome(taken=1)
    finally:
        await sink.close()
    found = ids(await everything(own_kafka.url, "small"))
    assert list(dict.fromkeys(found)) == [batch[0].id, batch[2].id]


async def test_kafka_away_is_no_obstacle_and_nothing_is_sent_twice_when_it_is_back(own_kafka: KafkaServer) -> None:
    """A batch that is on its way when the deadline comes is waited for, not sent again."""
    topic = new_topic()
    sink = kafka(own_kafka.url, topic, timeout_s=3.0)
    try:
        while (await sink.send([record(0)])).taken == 0:  # the topic is made when it is first used
            pass
        own_kafka.kill()
        later = records(20)[1:]
        outcome = await sink.send(later)
        assert (outcome.taken, outcome.verdict) == (0, "unknown")
        await asyncio.to_thread(own_kafka.start)
        end = time.monotonic() + 60
        while (outcome := await sink.send(later)).verdict != "taken":
            assert outcome.verdict in ("unknown", "unavailable")
            assert time.monotonic() < end
        assert outcome == Outcome(taken=19)
    finally:
        await sink.close()
    assert ids(await everything(own_kafka.url, topic)) == [one.id for one in records(20)]


async def test_a_sink_of_a_kafka_that_hangs_closes_quickly(own_kafka: KafkaServer) -> None:
    sink = kafka(own_kafka.url, new_topic(), timeout_s=2.0)
    try:
        await sink.send([record(0)])
        own_kafka.pause()
        # On a busy machine it may answer once more before all its threads stand still.
        verdicts = [(await sink.send([record(number)])).verdict for number in (1, 2)]
        assert verdicts[-1] == "unknown"
    finally:
        begun = time.monotonic()
        await sink.close()
        own_kafka.resume()
    assert time.monotonic() - begun < 1.2


async def test_without_a_broker_a_sink_says_so() -> None:
    sink = kafka("127.0.0.1:1", new_topic(), timeout_s=1.0)
    try:
        outcome = await sink.send([record(0)])
        assert (outcome.taken, outcome.verdict) == (0, "unavailable")
    finally:
        await sink.close()


# --- a broker that fails on demand --------------------------------------------------------------------------------


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with MockCluster() as made:
        made.topic("t")
        yield made


@pytest.fixture
async def mocked(cluster: MockCluster) -> AsyncIterator[KafkaSink]:
    sink = kafka(cluster.bootstrap, "t", timeout_s=4.0)
    assert await sink.send([record(0)]) == Outcome(taken=1)
    yield sink
    await sink.close()


@pytest.mark.parametrize("code", [NOT_LEADER, TIMED_OUT])
async def test_passing_errors_are_the_producers_own_business(
    cluster: MockCluster, mocked: KafkaSink, code: int
) -> None:
    cluster.fail_next(code, code)
    assert await mocked.send(records(5)[1:]) == Outcome(taken=4)
    assert ids(await everything(cluster.bootstrap, "t")) == [one.id for one in records(5)]


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (TOO_LARGE, "refused"),
        (AGAINST_POLICY, "refused"),
        (TOPIC_FORBIDDEN, "unavailable"),
        (BAD_TIMESTAMP, "unavailable"),  # this machine's clock is wrong: nothing may be parked for that
        (INVALID_RECORD, "unknown"),
    ],
)
async def test_lasting_errors_are_told_and_the_next_batch_goes_through(
    cluster: MockCluster, mocked: KafkaSink, code: int, verdict: str
) -> None:
    cluster.fail_next(code)
    outcome = await mocked.send([record(1)])
    assert (outcome.taken, outcome.verdict) == (0, verdict)
    assert await mocked.send([record(2)]) == Outcome(taken=1)
    assert ids(await everything(cluster.bootstrap, "t")) == [record(0).id, record(2).id]


async def test_a_slow_broker_is_unknown_and_the_record_arrives_all_the_same(
    cluster: MockCluster, mocked: KafkaSink
) -> None:
    """What was seen of a real broker: the send timed out, and the record was delivered later."""
    cluster.slow(6_000)
    outcome = await mocked.send([record(1)])
    assert outcome == Outcome(taken=0, verdict="unknown", reason="timeout")
    assert await mocked.send([record(1)]) == Outcome(taken=1)
    cluster.slow(0)
    assert ids(await everything(cluster.bootstrap, "t")) == [record(0).id, record(1).id]


async def test_a_broker_that_is_away_for_a_while(cluster: MockCluster, mocked: KafkaSink) -> None:
    cluster.down()
    assert (await mocked.send([record(1)])).verdict == "unknown"
    cluster.up()
    end = time.monotonic() + 30
    while (outcome := await mocked.send([record(1)])).taken == 0:
        assert outcome.verdict in ("unknown", "unavailable")
        assert time.monotonic() < end
    assert list(dict.fromkeys(ids(await everything(cluster.bootstrap, "t")))) == [record(0).id, record(1).id]


# --- Redis --------------------------------------------------------------------------------------------------------


def streams(url: str, stream: str, **more: Any) -> RedisStreamsSink:
    return RedisStreamsSink(RedisStreamsSettings(url=url, stream=stream, **({"timeout_s": 5.0} | more)))


async def entries(url: str, stream: str) -> list[Any]:
    async with Redis.from_url(url) as redis:
        return [found for _, found in await redis.xrange(stream) or ()]


def fields(one: Record) -> dict[bytes, bytes]:
    return {b"id": one.id.encode(), b"type": one.kind.encode(), b"interview": b"talk", b"event": one.body}


async def test_redis_gets_a_batch_in_order(redis_url: str) -> None:
    stream = f"streamsrv-test-{secrets.token_hex(4)}"
    sink = streams(redis_url, stream)
    try:
        assert await sink.send(records(100)) == Outcome(taken=100)
    finally:
        await sink.close()
    assert await entries(redis_url, stream) == [fields(one) for one in records(100)]


async def test_a_bounded_stream_keeps_about_so_many(redis_url: str) -> None:
    stream = f"streamsrv-test-{secrets.token_hex(4)}"
    sink = streams(redis_url, stream, max_length=200)
    try:
        for _ in range(20):
            await sink.send(records(100))
    finally:
        await sink.close()
    assert 200 <= len(await entries(redis_url, stream)) < 500


async def test_a_redis_without_memory_takes_nothing_of_a_batch(own_redis: RedisServer) -> None:
    sink = streams(own_redis.url, "s")
    try:
        assert await sink.send([record(0)]) == Outcome(taken=1)
        async with Redis.from_url(own_redis.url) as redis:
            await redis.config_set("maxmemory", "1mb")
            outcome = await sink.send([record(1), record(2, size=100_000)])
            assert (outcome.taken, outcome.verdict, outcome.reason) == (0, "unavailable", "OutOfMemoryError")
            await redis.config_set("maxmemory", "0")
        assert await sink.send(records(3)[1:]) == Outcome(taken=2)
    finally:
        await sink.close()
    assert await entries(own_redis.url, "s") == [fields(one) for one in records(3)]


async def test_a_redis_that_hangs_is_unknown_and_one_that_is_gone_comes_back(own_redis: RedisServer) -> None:
    sink = streams(own_redis.url, "s", timeout_s=0.5)
    try:
        assert await sink.send([record(0)]) == Outcome(taken=1)
        own_redis.pause()
        begun = time.monotonic()
        assert (await sink.send([record(1)])).verdict == "unknown"
        assert time.monotonic() - begun < 1.5, "the client's own retries are off"
        own_redis.resume()
        own_redis.kill()
        assert (await sink.send([record(1)])).verdict in ("unknown", "unavailable")
        await asyncio.to_thread(own_redis.start)
        while (await sink.send([record(1)])).taken == 0:
            pass
    finally:
        await sink.close()
    found = [one[b"id"].decode() for one in await entries(own_redis.url, "s")]
    assert list(dict.fromkeys(found)) == [record(0).id, record(1).id]


async def test_a_key_that_is_no_stream_is_no_fault_of_the_events(own_redis: RedisServer, tmp_path: Path) -> None:
    async with Redis.from_url(own_redis.url) as redis:
        await redis.set("s", "taken")
    sink = streams(own_redis.url, "s")
    try:
        outcome = await sink.send([record(0)])
        assert (outcome.taken, outcome.verdict) == (0, "unavailable")
        assert "x" * 3 not in outcome.reason
    finally:
        await sink.close()
