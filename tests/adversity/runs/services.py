"""MongoDB, two Redis servers, Kafka and a webhook, each behind a line: for one run at a time, run after run.

``MONGO_URL`` puts another MongoDB in place of the one started here (``tests/services/servers.py``).

Starting them costs more than a run, so a slot keeps them; each run has a database, a prefix, a topic, a stream and a
path of its own.  What a run breaks is mended before the next one.  The clients' libraries are imported late: runs of
one node need none of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tests.adversity.runs import leftovers
from tests.adversity.runs.handed import handed_from
from tests.adversity.runs.harms import harm_line
from tests.adversity.runs.hook import CLOCKS_APART_S, Hook
from tests.adversity.runs.ledger import Handed
from tests.adversity.runs.lines import HOST, Line, to_port
from tests.adversity.runs.node import free_port
from tests.adversity.runs.plan import Fault
from tests.services.servers import KafkaServer, RedisServer, Server, mongo_server

if TYPE_CHECKING:
    from pymongo.asynchronous.database import AsyncDatabase

READ_WITHIN_S = 20.0
"""Reading a sink takes no longer."""
READ_FOR_MS = 500
SINKS = ("kafka", "redis_streams", "webhook")
CONSUMER_SESSION_S = 1.5
"""A consumer that was killed holds its place in its Kafka group for so long.  By default it is 6 s, on a clock that is
not ``odds.FASTER``; a rebalance itself is no faster here than anywhere."""


class AdvertisedKafka(KafkaServer):
    """Tells clients to come by another port, the line's; lets consumers be impatient, and comes back sooner."""

    def __init__(self, folder: Path, port: int, advertised: int) -> None:
        super().__init__(folder, port)
        self.controller_port = free_port()
        self._advertised = advertised

    def _settings(self) -> dict[str, object]:
        return {
            **super()._settings(),
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self._advertised}",
            "group.min.session.timeout.ms": round(CONSUMER_SESSION_S * 1_000),
            "broker.session.timeout.ms": 1_000,
            "broker.heartbeat.interval.ms": 200,
        }


class Services:
    """The services of one slot.

    Args:
        folder: for their data and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.hook = Hook(tolerance_s=CLOCKS_APART_S)
        self._folder = folder
        self._mongo = mongo_server(folder / "mongo", free_port())
        self._servers: dict[str, Server] = {
            "mongo": self._mongo,
            "redis": RedisServer(folder / "redis", free_port()),
            "redis_streams": RedisServer(folder / "redis-streams", free_port()),
        }
        self._lines: dict[str, Line] = {}

    async def __aenter__(self) -> Self:
        await self.hook.start()
        for name, server in self._servers.items():
            self._lines[name] = await Line(to_port(server.port)).start()
        port = free_port()
        line = self._lines["kafka"] = await Line(to_port(port)).start()
        self._servers["kafka"] = AdvertisedKafka(self._folder / "kafka", port, line.port)
        await asyncio.gather(*map(_start, self._servers.values()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.hook.close()
        for line in self._lines.values():
            await line.close()
        for server in self._servers.values():
            await asyncio.to_thread(server.kill)

    async def mend(self) -> None:
        """Everything runs, and no line is harmed."""
        self.hook.mend()
        for line in self._lines.values():
            line.mend()
        for server in self._servers.values():
            if server.running:
                server.resume()
            else:
                await _start(server)

    def settings(self, run: str) -> dict[str, str]:
        """What nodes are told of them; times are short, as outages are."""
        ports = {name: line.port for name, line in self._lines.items()}
        return {
            "STREAMSRV_MONGO_URL": self.mongo_url.replace(f"{HOST}:{self._mongo.port}", f"{HOST}:{ports['mongo']}"),
            "STREAMSRV_MONGO_DATABASE": run,
            "STREAMSRV_MONGO_TIMEOUT_S": "1",
            "STREAMSRV_REDIS_URL": f"redis://{HOST}:{ports['redis']}/0",
            "STREAMSRV_REDIS_PREFIX": run,
            **self.hook.settings(run),
            "STREAMSRV_OUTBOX_SINKS": ",".join(SINKS),
            "STREAMSRV_KAFKA_BOOTSTRAP": f"{HOST}:{ports['kafka']}",
            "STREAMSRV_KAFKA_TOPIC": run,
            "STREAMSRV_KAFKA_TIMEOUT_S": "1.4",
            "STREAMSRV_REDIS_STREAMS_URL": f"redis://{HOST}:{ports['redis_streams']}/0",
            "STREAMSRV_REDIS_STREAMS_STREAM": run,
            "STREAMSRV_REDIS_STREAMS_TIMEOUT_S": "1",
        }

    def reading(self, sink: str, run: str) -> list[str]:
        """How the example consumer is told to read one of the sinks; it passes the line, as nodes do."""
        port = self._lines[sink].port
        if sink == "kafka":
            where = ["kafka", "--bootstrap", f"{HOST}:{port}", "--topic", run]
            return [*where, "--group", f"{run}-{{group}}", "--session-s", str(CONSUMER_SESSION_S)]
        return ["redis", "--url", f"redis://{HOST}:{port}/0", "--stream", run, "--group", "{group}"]

    @property
    def mongo_url(self) -> str:
        """Past the line, for who only looks."""
        return self._mongo.url

    async def forget(self, run: str) -> None:
        """Leave nothing of a run on a MongoDB that is not ours."""
        await asyncio.to_thread(self._mongo.forget, run)

    # --- what goes wrong ----------------------------------------------------------------------------------------

    async def harm(self, fault: Fault) -> None:
        """Do it, and undo it when its time is over."""
        if fault.whom == "webhook":
            return await self.hook.harm(fault)
        server = self._servers[fault.whom]
        match fault.what:
            case "kill" | "stop":
                await asyncio.to_thread(server.kill if fault.what == "kill" else server.stop)
                await asyncio.sleep(fault.lasts_s)
                await _start(server)
            case "freeze":
                server.pause()
                await asyncio.sleep(fault.lasts_s)
                server.resume()
            case "flush":
                await _redis(server.port, "FLUSHALL")
            case "full":
                await _redis(server.port, "CONFIG", "SET", "maxmemory", "1")
                await asyncio.sleep(fault.lasts_s)
                await _redis(server.port, "CONFIG", "SET", "maxmemory", "0")
            case "replica":
                await _redis(server.port, "REPLICAOF", HOST, str(free_port()))
                await asyncio.sleep(fault.lasts_s)
                await _redis(server.port, "REPLICAOF", "NO", "ONE")
            case _:
                await harm_line(self._lines[fault.whom], fault.what, fault.lasts_s)

    # --- what is left over ----------------------------------------------------------------------------------------

    async def announced(self, run: str) -> list[str]:
        """Batches of finals that are said to be under way."""
        async with self._database(run) as database:
            return await leftovers.announced(database)

    async def left_over(self, run: str, *, nodes: int) -> list[str]:
        """What lies in MongoDB and in the Redis of hints when the nodes have ended."""
        from redis.asyncio import Redis

        async with self._database(run) as database, Redis.from_url(self._servers["redis"].url) as redis:
            return await leftovers.of_mongo(database, nodes) + await leftovers.of_redis(redis, run)

    @asynccontextmanager
    async def _database(self, run: str) -> AsyncIterator[AsyncDatabase[dict[str, Any]]]:
        from pymongo import AsyncMongoClient

        async with AsyncMongoClient[dict[str, Any]](self.mongo_url) as client:
            yield client[run]

    # --- what the sinks hold ------------------------------------------------------------------------------------

    async def handed(self, run: str) -> list[Handed]:
        """Everything each sink was given, in its order."""
        async with asyncio.timeout(READ_WITHIN_S):
            kafka = await self._of_kafka(run)
            redis = await self._of_redis(run)
        hook = self.hook.kept.get(run, [])
        return [
            handed_from(sink, event)
            for sink, events in zip(SINKS, (kafka, redis, hook), strict=True)
            for event in events
        ]

    async def _of_kafka(self, topic: str) -> list[bytes]:
        from aiokafka import AIOKafkaConsumer

        bootstrap = f"{HOST}:{self._lines['kafka'].port}"
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        await consumer.start()
        found: list[bytes] = []
        try:
            ends = await consumer.end_offsets(consumer.assignment())
            while any([await consumer.position(place) < end for place, end in ends.items()]):
                batches = await consumer.getmany(timeout_ms=READ_FOR_MS)
                found += [record.value for records in batches.values() for record in records]
        finally:
            await consumer.stop()
        return found

    async def _of_redis(self, stream: str) -> list[bytes]:
        from redis.asyncio import Redis

        async with Redis.from_url(f"redis://{HOST}:{self._servers['redis_streams'].port}/0") as redis:
            entries: Any = await redis.xrange(stream)
            return [bytes(fields[b"event"]) for _, fields in entries]


async def _start(server: Server) -> None:
    """From this thread, with which it ends: those of ``to_thread`` may end before."""
    await asyncio.to_thread(server.prepare)
    server.launch()
    await asyncio.to_thread(server.wait_ready)


async def _redis(port: int, *command: str) -> None:
    from redis.asyncio import Redis

    async with Redis.from_url(f"redis://{HOST}:{port}/0") as redis:
        await redis.execute_command(*command)  # type: ignore[no-untyped-call]
