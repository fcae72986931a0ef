"""Redis is emptied, restarted, killed, paused, full, a replica or locked in mid-interview: nothing is lost, none waits.

Each fault hits two nodes, with a speaker and viewers, and is over before the interview is.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest

from streamsrv import events
from streamsrv.runtime import neighbours
from streamsrv.settings import ServerSettings
from streamsrv.shared_state import redis as module
from streamsrv.shared_state._redis import waiting
from tests.services.nodes import condition, count, health, neighbour_client, two_nodes, until_so
from tests.services.servers import RedisServer, free_port
from tests.support.server import Running
from tests.support.watching import SENTENCE, End, finals_of, peer, stored, until, viewer

Fault: TypeAlias = Literal["flushall", "restart", "kill", "pause", "full", "replica", "password", "cut"]
UNSEEN: frozenset[Fault] = frozenset({"flushall", "restart", "cut"})
"""Over before a node has to notice."""
STALLED_S = 2.0
"""A sentence takes milliseconds; with the defaults of the library, a stopped Redis would cost 15 s a call."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes every few seconds comes often."""
    monkeypatch.setattr(module, "BEAT_S", 0.2)
    monkeypatch.setattr(module, "PAUSES_S", (0.1,))
    monkeypatch.setattr(neighbours, "CHECK_EVERY_S", 0.5)
    monkeypatch.setattr(neighbours, "CHECK_DEGRADED_S", 0.2)


@asynccontextmanager
async def broken(redis: RedisServer, fault: Fault) -> AsyncIterator[None]:
    """Redis has this fault meanwhile."""
    match fault:
        case "flushall":
            await command(redis, "FLUSHALL")
            yield
        case "restart":
            await asyncio.to_thread(redis.stop)
            await asyncio.to_thread(redis.start)
            yield
        case "cut":
            await command(redis, "CLIENT", "KILL", "TYPE", "pubsub")
            await command(redis, "CLIENT", "KILL", "TYPE", "normal")
            yield
        case "kill":
            redis.kill()
            yield
            await asyncio.to_thread(redis.start)
        case "pause":
            redis.pause()
            yield
            redis.resume()
        case "full":
            await command(redis, "CONFIG", "SET", "maxmemory", "1")
            yield
            await command(redis, "CONFIG", "SET", "maxmemory", "0")
        case "replica":
            await command(redis, "REPLICAOF", "127.0.0.1", str(free_port()))
            yield
            await command(redis, "REPLICAOF", "NO", "ONE")
        case "password":
            await command(redis, "CONFIG", "SET", "requirepass", "sesame")
            locked = redis.url.replace("//", "//:sesame@")
            for kind in ("pubsub", "normal"):
                await command(redis, "CLIENT", "KILL", "TYPE", kind, url=locked)
            yield
            await command(redis, "CONFIG", "SET", "requirepass", "", url=locked)


async def command(redis: RedisServer, *words: str, url: str | None = None) -> None:
    async with neighbour_client(url or redis.url) as client:
        await client.execute_command(*words)  # type: ignore[no-untyped-call]


async def told(watch: End, kind: str, **wanted: object) -> None:
    """Read until the viewer was told of this."""
    while not any(event["type"] == kind and wanted.items() <= event.items() for event in watch.events):
        await watch.event()


async def say(speaker: End) -> None:
    """A sentence, stored in time."""
    begun = time.monotonic()
    await speaker.say()
    assert time.monotonic() - begun < STALLED_S


@pytest.mark.parametrize("fault", ["flushall", "restart", "kill", "pause", "full", "replica", "password", "cut"])
async def test_no_word_is_lost_and_nobody_waits(tmp_path: Path, own_redis: RedisServer, fault: Fault) -> None:
    settings = ServerSettings(max_sessions_per_key=3)
    async with (
        two_nodes(tmp_path, own_redis.url, server=settings) as nodes,
        viewer(nodes.two) as far,
        peer(nodes.one) as speaker,
    ):
        await say(speaker)
        await told(far, "final", segment=0)
        async with broken(own_redis, fault):
            if fault not in UNSEEN:
                await until(lambda: condition(nodes.one) == condition(nodes.two) == "degraded")
                assert (await health(nodes.two))["shared_state"] == "degraded"
            for _ in range(3):
                await say(speaker)
            async with peer(nodes.two) as newcomer:
                await say(newcomer)
                await told(far, "final", stream=newcomer.events[0]["stream"])
                await newcomer.finish()
            await told(far, "final", stream=speaker.events[0]["stream"], segment=3)
        await until(lambda: condition(nodes.one) == condition(nodes.two) == "ok")
        assert (await health(nodes.two))["status"] == "ok"
        await say(speaker)
        await told(far, "final", stream=speaker.events[0]["stream"], segment=4)
        await speaker.finish()
        await told(far, "stream_ended", stream=speaker.events[0]["stream"])
        assert finals_of(far.events) == await stored(nodes.one)
        kept = await nodes.one.store.finals("talk")
        assert [one.final.text for one in kept] == ["w0 w1 w2"] * 6
        assert stalls(nodes.one) < STALLED_S > stalls(nodes.two)


def stalls(server: Running) -> float:
    """Seconds the event loop was late in all, at most what the test bears."""
    total = server.numbers.registry.get_sample_value("streamsrv_loop_stall_seconds_sum")
    assert total is not None
    return total


@pytest.mark.parametrize("fault", ["kill", "pause", "password"])
async def test_a_server_starts_without_redis_and_finds_it(tmp_path: Path, own_redis: RedisServer, fault: Fault) -> None:
    async with asyncio.timeout(40):
        breaking = broken(own_redis, fault)
        await breaking.__aenter__()
        begun = time.monotonic()
        async with two_nodes(tmp_path, own_redis.url, well=False) as nodes, viewer(nodes.two) as far:
            assert time.monotonic() - begun < 6.0
            assert (await health(nodes.one))["shared_state"] == "degraded"
            async with peer(nodes.one) as speaker:
                await say(speaker)
                await told(far, "final", segment=0)
                await breaking.__aexit__(None, None, None)
                await until(lambda: condition(nodes.one) == condition(nodes.two) == "ok")
                await say(speaker)
                await told(far, "final", segment=1)


async def test_a_ping_that_meets_the_end_of_its_connection_does_not_end_the_beat(
    tmp_path: Path, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_nodes(tmp_path, own_redis.url) as nodes, neighbour_client(own_redis.url) as looker:

        async def signs_of_life() -> int:
            return len(await looker.keys("streamsrv:node:*"))

        shared: Any = nodes.one.shared
        await until(lambda: shared._hearing._pubsub is not None)
        lost = shared._hearing._pubsub
        monkeypatch.setattr(lost, "connect", lost.aclose)  # while the ping waits for it
        await until(lambda: shared._hearing._pubsub not in (None, lost))
        await command(own_redis, "FLUSHALL")
        await until_so(signs_of_life, 2)
        async with viewer(nodes.one) as watch, peer(nodes.two) as speaker:
            await say(speaker)
            await told(watch, "final")


async def test_a_takeover_while_redis_is_away_is_fenced_by_the_store(tmp_path: Path, own_redis: RedisServer) -> None:
    async with two_nodes(tmp_path, own_redis.url) as nodes, peer(nodes.one) as old:
        await say(old)
        async with broken(own_redis, "kill"):
            await until(lambda: condition(nodes.two) == "degraded")
            async with peer(nodes.two, query=f"resume={old.events[0]['resume_token']}") as new:
                await old.ws.send_bytes(SENTENCE)  # what it says now, the store refuses
                assert await old.end() == 4409
                await new.say(2)  # the first of them is what was said before
                await new.finish()
        assert [name[2] for name in await stored(nodes.one)] == [0, 1]


async def test_a_redis_that_hangs_costs_memory_a_bound_and_time_nothing(
    tmp_path: Path, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Much happens while nothing can be sent, before it is even known."""
    monkeypatch.setattr(waiting, "MAX_EVENTS", 50)
    async with two_nodes(tmp_path, own_redis.url) as nodes, viewer(nodes.two) as far, peer(nodes.one) as speaker:
        await say(speaker)
        await far.until("final", segment=0)
        shared, stream = nodes.one.shared, speaker.events[0]["stream"]
        async with broken(own_redis, "pause"):
            begun = time.monotonic()
            for number in range(5_000):
                shared.tell("talk", stream, events.SpeechStarted(channel=0, utterance=number, at=0))
            assert time.monotonic() - begun < 1.0
            assert count(nodes.one, "dropped") >= 4_900
            await say(speaker)
        await until(lambda: condition(nodes.one) == condition(nodes.two) == "ok")
        await say(speaker)
        await told(far, "final", segment=2)
        assert finals_of(far.events) == await stored(nodes.one)


async def test_over_tls(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    named = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2")
    making = await asyncio.create_subprocess_exec(*made, "-keyout", key, "-out", certificate, *named, stderr=-3)
    assert await making.wait() == 0
    with TlsRedis(tmp_path / "redis", key, certificate) as redis:
        await asyncio.to_thread(redis.start)
        async with two_nodes(tmp_path, redis.url) as nodes, viewer(nodes.two) as far, peer(nodes.one) as speaker:
            await say(speaker)
            await far.until("final", segment=0)
        stranger = redis.url.partition("?")[0]
        async with two_nodes(tmp_path / "stranger", stranger, well=False) as nodes:
            assert condition(nodes.one) == "degraded"  # a certificate nobody vouches for is not taken


class TlsRedis(RedisServer):
    """Speaks TLS alone."""

    def __init__(self, folder: Path, key: Path, certificate: Path) -> None:
        super().__init__(folder)
        self._key = key
        self._certificate = certificate

    @property
    def url(self) -> str:
        return f"rediss://127.0.0.1:{self.port}/0?ssl_ca_certs={self._certificate}"

    def command(self) -> list[str]:
        program, *rest = super().command()
        at = rest.index("--port")
        rest[at] = "--tls-port"
        files = ["--tls-cert-file", str(self._certificate), "--tls-key-file", str(self._key)]
        return [program, "--port", "0", *rest, *files, "--tls-auth-clients", "no"]

    def ready(self) -> bool:
        return "Ready to accept connections" in self.log.read_text("utf-8", "replace")


async def test_the_rights_that_are_documented_are_enough(tmp_path: Path, own_redis: RedisServer) -> None:
    text = (Path(__file__).parents[2] / "docs" / "operate.md").read_text("utf-8")
    rights = re.findall(r"`([A-Z]+)`", text[text.index("Needed rights") : text.index("Redis Cluster")])
    commands = [f"+{right.lower()}" for right in rights]
    await command(
        own_redis, "ACL", "SETUSER", "app", "on", ">sesame", "~streamsrv:*", "&streamsrv:*", "-@all", *commands
    )
    url = own_redis.url.replace("//", "//app:sesame@")
    settings = ServerSettings(max_sessions_per_key=3, max_starts_per_minute_per_key=9)
    async with two_nodes(tmp_path, url, server=settings) as nodes, peer(nodes.one) as speaker:
        async with viewer(nodes.two) as far:
            await say(speaker)
            await far.until("final", segment=0)
            async with peer(nodes.two, query=f"resume={speaker.events[0]['resume_token']}"):
                assert await speaker.end() == 4409
        assert condition(nodes.one) == condition(nodes.two) == "ok"
        assert not any(count(node, what) for node in nodes for what in ("dropped", "unreadable"))
