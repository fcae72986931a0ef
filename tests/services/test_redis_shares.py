"""Each API key's share, counted over all nodes; on each by itself while Redis is away."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from streamsrv import telemetry
from streamsrv.settings import ServerSettings
from streamsrv.shared_state import redis as module
from streamsrv.shared_state._redis import link, shares
from streamsrv.shared_state.redis import RedisSettings, RedisState
from tests.services.nodes import condition, neighbour_client, two_nodes, until_so
from tests.services.servers import RedisServer, free_port
from tests.support.server import Running
from tests.support.watching import peer, until


class Nobody:
    """Hears nothing."""

    def told(self, interview: str, stream: str, event: object) -> None: ...

    def missed(self, interview: str) -> None: ...

    def taken(self, interview: str, stream: str, epoch: int, node: str) -> None: ...

    def deleted(self, interview: str) -> None: ...


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes every few seconds comes often."""
    monkeypatch.setattr(module, "BEAT_S", 0.2)
    monkeypatch.setattr(module, "PAUSES_S", (0.1,))


@asynccontextmanager
async def states(url: str, count: int = 2) -> AsyncIterator[list[RedisState]]:
    made = [RedisState(RedisSettings(url=url, timeout_s=1.0), CollectorRegistry()) for _ in range(count)]
    for one in made:
        await one.open(Nobody())
    try:
        yield made
    finally:
        for one in made:
            await one.close()


async def enters(server: Running, query: str = "") -> bool:
    """Whether a speaker is let in; it leaves at once."""
    with suppress(aiohttp.WSServerHandshakeError):
        async with peer(server, query=query):
            return True
    return False


# --- counting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("round_", range(5))
async def test_a_race_for_the_last_places_has_as_many_winners_as_places(own_redis: RedisServer, round_: int) -> None:
    async with states(own_redis.url, 3) as nodes:
        asked = [node.reserve("key", str(n), 7) for n in range(10) for node in nodes]
        answers = await asyncio.gather(*asked)
        assert (answers.count(True), answers.count(False)) == (7, 23)


async def test_a_key_has_its_share_over_all_nodes(tmp_path: Path, own_redis: RedisServer) -> None:
    settings = ServerSettings(max_sessions_per_key=2)
    async with two_nodes(tmp_path, own_redis.url, server=settings) as nodes, peer(nodes.one) as speaker:
        async with peer(nodes.two):
            assert not await enters(nodes.one)
            assert not await enters(nodes.two)
            token = speaker.events[0]["resume_token"]
            assert await enters(nodes.two, f"resume={token}")  # resumes have a reserve
        await until_so(lambda: enters(nodes.two), True)


async def test_holders_do_not_count_for_each_other_and_their_names_do_not_go_out(own_redis: RedisServer) -> None:
    async with states(own_redis.url) as (one, two), neighbour_client(own_redis.url) as looker:
        assert await one.reserve("my-secret-key", "1", 1) is True
        assert await two.reserve("my-secret-key", "1", 1) is False
        assert await two.reserve("another", "1", 1) is True
        assert not [name for name in await looker.keys("*") if "secret" in str(name)]


async def test_what_is_asked_for_twice_counts_once(own_redis: RedisServer) -> None:
    async with states(own_redis.url) as (one, _):
        assert [await one.reserve("key", "same", 1) for _ in range(3)] == [True] * 3


# --- leases ------------------------------------------------------------------------------------------------------


async def test_the_leases_of_a_node_that_dies_run_out(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "LEASE_MS", 700)
    async with states(own_redis.url) as (one, two):
        assert await one.reserve("key", "1", 1) is True
        await asyncio.sleep(1.0)  # longer than a lease: it is renewed
        assert await two.reserve("key", "1", 1) is False
        dying: Any = one
        await link.end(dying._tasks)  # one cancellation may go unheard
        dying._link.well.clear()  # nor does it say good-bye
        await until_so(lambda: two.reserve("key", "1", 1), True)


async def test_a_node_that_goes_gives_its_leases_back_at_once(own_redis: RedisServer) -> None:
    async with states(own_redis.url) as (one, two):
        assert await one.reserve("key", "1", 1) is True
        await one.close()
        assert await two.reserve("key", "1", 1) is True


async def test_leases_that_redis_forgets_are_counted_again(own_redis: RedisServer) -> None:
    async with states(own_redis.url) as (one, two), neighbour_client(own_redis.url) as looker:
        assert await one.reserve("key", "1", 1) is True
        await looker.flushall()
        await until_so(lambda: looker.exists(*[shares_key(one)]), 1)
        assert await two.reserve("key", "1", 1) is False


def shares_key(state: Any) -> str:
    return str(state._names.share("key"))


async def test_a_clock_that_was_turned_back_keeps_no_lease_for_ever(own_redis: RedisServer) -> None:
    async with states(own_redis.url) as (one, _), neighbour_client(own_redis.url) as looker:
        await looker.zadd(shares_key(one), {"dead:1": 9e15})
        assert await one.reserve("key", "1", 1) is True


async def test_who_leaves_while_it_is_asked_holds_nothing(own_redis: RedisServer) -> None:
    async with states(own_redis.url) as (one, two):
        asking = asyncio.create_task(one.reserve("key", "1", 1))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until_so(lambda: two.reserve("key", "1", 1), True)


# --- without Redis -----------------------------------------------------------------------------------------------


async def test_without_redis_each_node_counts_by_itself_and_says_so(tmp_path: Path, own_redis: RedisServer) -> None:
    said = io.StringIO()
    before = telemetry.use(telemetry.Sink(said, threaded=False))
    try:
        await _without_redis(tmp_path, own_redis)
    finally:
        telemetry.use(before)
    lines = [json.loads(line) for line in said.getvalue().splitlines()]
    away = [line for line in lines if line["event"] == "shared_state.away"]
    assert len(away) == 2  # once on each node
    assert "this node alone" in away[0]["note"]
    assert own_redis.url not in said.getvalue()


async def _without_redis(tmp_path: Path, own_redis: RedisServer) -> None:
    settings = ServerSettings(max_sessions_per_key=2)
    async with two_nodes(tmp_path, own_redis.url, server=settings) as nodes, AsyncExitStack() as inside:
        own_redis.kill()
        await until(lambda: condition(nodes.one) == condition(nodes.two) == "degraded")
        for server in (*nodes, *nodes):
            await inside.enter_async_context(peer(server))
        assert not await enters(nodes.one)
        assert not await enters(nodes.two)
        await asyncio.to_thread(own_redis.start)
        await until(lambda: condition(nodes.one) == condition(nodes.two) == "ok")
        async with neighbour_client(own_redis.url) as looker:
            await until_so(lambda: looker.zcard(str(nodes.one.shared._names.share(""))), 4)  # type: ignore[attr-defined]
        assert not await enters(nodes.one)  # those inside stay, and count


async def test_a_redis_that_takes_no_writes_is_as_good_as_none(own_redis: RedisServer) -> None:
    async with states(own_redis.url) as (one, two), neighbour_client(own_redis.url) as looker:
        await looker.replicaof("127.0.0.1", str(free_port()))
        assert await one.reserve("key", "1", 1) is None
        assert one.condition == "degraded"
        await until(lambda: two.condition == "degraded")
        await looker.replicaof("NO", "ONE")
        await until(lambda: one.condition == two.condition == "ok")
        assert await two.reserve("key", "2", 1) is False  # the lease that could not be written was held all the same
