"""What each API key may begin in a minute, counted over all nodes; on each by itself while Redis is away."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest

from streamsrv import telemetry
from streamsrv.settings import ServerSettings
from streamsrv.shared_state import redis as module
from streamsrv.shared_state._redis import starts
from streamsrv.shared_state.redis import RedisState
from tests.services.nodes import condition, neighbour_client, two_nodes, until_so
from tests.services.servers import RedisServer, free_port
from tests.services.test_redis_shares import enters, states
from tests.support.watching import until

WINDOW_S = 60.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes every few seconds comes often."""
    monkeypatch.setattr(module, "BEAT_S", 0.2)
    monkeypatch.setattr(module, "PAUSES_S", (0.1,))


def name_of(state: Any, key: str = "key") -> str:
    return str(state._names.starts(key))


async def times(looker: Any, state: RedisState) -> list[int]:
    """Of what was counted, newest first."""
    return [int(one) for one in await looker.lrange(name_of(state), 0, -1)]


# --- counting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("round_", range(5))
async def test_of_those_who_ask_at_once_exactly_as_many_begin_as_may(own_redis: RedisServer, round_: int) -> None:
    async with states(own_redis.url, 3) as nodes:
        answers = await asyncio.gather(*(node.start("key", 7) for _ in range(10) for node in nodes))
        refused = [answer for answer in answers if answer]
        assert (answers.count(0.0), len(refused)) == (7, 23)
        assert all(WINDOW_S - 5 < answer <= WINDOW_S for answer in refused)


async def test_a_beginning_counts_for_the_window_and_the_answer_says_how_long(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starts, "WINDOW_MS", 600)
    async with states(own_redis.url) as (one, two), neighbour_client(own_redis.url) as looker:
        assert [await one.start("key", 2), await two.start("key", 2)] == [0.0, 0.0]
        wait_s = await one.start("key", 2)
        assert wait_s is not None
        assert 0 < wait_s <= 0.6
        await asyncio.sleep(wait_s + 0.002)
        assert await two.start("key", 2) == 0.0
        assert len(await times(looker, one)) <= 2
        await until_so(lambda: looker.exists(name_of(one)), 0)  # nothing is left of a key that begins no more


async def test_keys_do_not_count_for_each_other_and_do_not_go_out(own_redis: RedisServer) -> None:
    async with states(own_redis.url) as (one, two), neighbour_client(own_redis.url) as looker:
        assert await one.start("my-secret-key", 1) == 0.0
        assert await two.start("my-secret-key", 1)
        assert await two.start("another", 1) == 0.0
        assert not [name for name in await looker.keys("*") if "secret" in str(name)]
        assert await looker.pttl(name_of(one, "another")) > 0


async def test_nodes_with_different_limits_each_keep_their_own(own_redis: RedisServer) -> None:
    """While a setting is rolled out; the answer is the time after which it would be so, not after which one is free."""
    async with states(own_redis.url) as (one, two), neighbour_client(own_redis.url) as looker:
        assert [await one.start("key", 3) for _ in range(3)] == [0.0] * 3
        now = max(await times(looker, one))
        await looker.delete(name_of(one))
        await looker.rpush(name_of(one), now, now - 20_000, now - 40_000)
        wait_s = await two.start("key", 1)
        assert wait_s is not None
        assert wait_s == pytest.approx(WINDOW_S, abs=5)
        assert len(await times(looker, one)) == 3


# --- clocks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ahead_ms", "begins"), [(30_000, False), (59_000, False), (61_000, True), (10**15, True)])
async def test_a_clock_that_was_turned_back_keeps_nobody_out_for_long(
    own_redis: RedisServer, ahead_ms: int, begins: bool
) -> None:
    async with states(own_redis.url) as (one, _), neighbour_client(own_redis.url) as looker:
        assert await one.start("key", 1) == 0.0
        (now,) = await times(looker, one)
        await looker.lset(name_of(one), 0, str(now + ahead_ms))
        wait_s = await one.start("key", 1)
        assert wait_s is not None
        assert (wait_s == 0.0) is begins
        assert wait_s <= WINDOW_S


async def test_after_a_step_back_times_stay_in_order(own_redis: RedisServer) -> None:
    async with states(own_redis.url) as (one, _), neighbour_client(own_redis.url) as looker:
        assert await one.start("key", 5) == 0.0
        (now,) = await times(looker, one)
        await looker.lset(name_of(one), 0, str(now + 10_000))
        assert await one.start("key", 5) == 0.0
        assert await times(looker, one) == [now + 10_000] * 2


# --- two servers, and a Redis that fails -------------------------------------------------------------------------


async def test_a_key_begins_as_many_over_all_nodes(tmp_path: Path, own_redis: RedisServer) -> None:
    settings = ServerSettings(max_starts_per_minute_per_key=3)
    async with two_nodes(tmp_path, own_redis.url, server=settings) as nodes:
        assert [await enters(node) for node in (*nodes, *nodes)] == [True, True, True, False]
        assert not await enters(nodes.one)


async def test_after_flushall_each_node_still_counts_its_own(tmp_path: Path, own_redis: RedisServer) -> None:
    settings = ServerSettings(max_starts_per_minute_per_key=2)
    async with two_nodes(tmp_path, own_redis.url, server=settings) as nodes:
        assert [await enters(nodes.one), await enters(nodes.one)] == [True, True]
        async with neighbour_client(own_redis.url) as looker:
            await looker.flushall()
        assert not await enters(nodes.one)
        assert [await enters(nodes.two) for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("fault", ["kill", "pause"])
async def test_without_redis_each_node_counts_by_itself_and_says_so(
    tmp_path: Path, own_redis: RedisServer, fault: str
) -> None:
    settings = ServerSettings(max_starts_per_minute_per_key=2)
    said = io.StringIO()
    before = telemetry.use(telemetry.Sink(said, threaded=False))
    try:
        async with two_nodes(tmp_path, own_redis.url, server=settings) as nodes:
            assert await enters(nodes.one)
            (own_redis.kill if fault == "kill" else own_redis.pause)()
            answers = [await enters(node) for node in (nodes.one, nodes.one, *[nodes.two] * 3)]
            assert answers == [True, False, True, True, False]
            await until(lambda: condition(nodes.one) == condition(nodes.two) == "degraded")
            counted = nodes.two.numbers.registry.get_sample_value
            assert counted("streamsrv_key_starts_total", {"counted_by": "one"}) == 2
            if fault == "kill":
                await asyncio.to_thread(own_redis.start)
            else:
                own_redis.resume()
            await until(lambda: condition(nodes.one) == condition(nodes.two) == "ok")
            assert [await enters(node) for node in nodes] == [False, False], "what began meanwhile counts on its node"
    finally:
        telemetry.use(before)
    lines = [json.loads(line) for line in said.getvalue().splitlines()]
    away = [line for line in lines if line["event"] == "shared_state.away"]
    assert len(away) == 2
    assert all("limits hold for this node alone" in line["note"] for line in away)


async def test_a_redis_that_takes_no_writes_is_as_good_as_none(own_redis: RedisServer) -> None:
    async with states(own_redis.url) as (one, _), neighbour_client(own_redis.url) as looker:
        await looker.replicaof("127.0.0.1", str(free_port()))
        assert await one.start("key", 1) is None
        assert one.condition == "degraded"
        await looker.replicaof("NO", "ONE")
        await until(lambda: one.condition == "ok")
        assert await one.start("key", 1) == 0.0
