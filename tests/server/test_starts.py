"""How many streams and uploads a key may begin in a minute, on a clock wound by hand; and where that is asked."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from streamsrv.errors import RateLimited
from streamsrv.server.starts import WINDOW_S, Starts
from streamsrv.settings import ServerSettings
from streamsrv.shared_state.memory import MemoryState
from tests.support.puppet import Puppet
from tests.support.recordings import wav
from tests.support.server import Running, running
from tests.support.speech import silence, voice
from tests.support.watching import peer, viewer

KEYS = ("first-key-1", "second-key-2")


class Bench:
    """Starts with a clock in hand."""

    def __init__(self, most: int | None, shared: MemoryState | None = None) -> None:
        self.now = 1_000.0
        self.registry = CollectorRegistry()
        self.starts = Starts(most, shared or MemoryState(), self.registry, lambda: self.now)

    async def begins(self, key: str = "one") -> bool:
        try:
            await self.starts.count(key)
        except RateLimited:
            return False
        return True

    def counted(self, by: str) -> float | None:
        return self.registry.get_sample_value("streamsrv_key_starts_total", {"counted_by": by})


# --- counting ------------------------------------------------------------------------------------------------------


async def test_a_key_begins_as_many_as_it_may_and_each_frees_its_place_after_a_minute() -> None:
    bench = Bench(2)
    assert await bench.begins()
    bench.now += 20
    assert await bench.begins()
    assert not await bench.begins()
    assert await bench.begins("two"), "keys do not count for each other"
    bench.now += WINDOW_S - 20 - 0.001
    assert not await bench.begins()
    bench.now += 0.001
    assert await bench.begins()
    assert not await bench.begins()
    bench.now += 20
    assert await bench.begins()


async def test_the_refusal_names_limit_remedy_and_time() -> None:
    bench = Bench(1)
    assert await bench.begins()
    bench.now += 17.5
    with pytest.raises(RateLimited, match="began 1 streams and uploads within a minute") as refused:
        await bench.starts.count("one")
    assert refused.value.retry_after_s == 43, "never too early"
    assert "resume" in refused.value.hint
    assert (refused.value.http_status, refused.value.code, refused.value.retryable) == (429, "rate_limited", True)


async def test_without_a_limit_everybody_begins() -> None:
    bench = Bench(None)
    assert all([await bench.begins() for _ in range(1_000)])
    bench.starts.foresee("one")
    assert not bench.starts._windows


async def test_who_only_looks_counts_nothing() -> None:
    bench = Bench(1)
    for _ in range(3):
        bench.starts.foresee("one")
    assert await bench.begins()
    with pytest.raises(RateLimited):
        bench.starts.foresee("one")
    bench.now += WINDOW_S
    bench.starts.foresee("one")


@given(st.lists(st.floats(0, 30), max_size=120), st.integers(1, 12))
async def test_no_minute_has_more_and_nobody_waits_in_vain(gaps: list[float], most: int) -> None:
    bench = Bench(most)
    begun: list[float] = []
    for gap in gaps:
        bench.now += gap
        within = sum(1 for one in begun if bench.now < one + WINDOW_S)
        assert await bench.begins() is (within < most)
        if within < most:
            begun.append(bench.now)
    assert all(len(window._times) <= most for window in bench.starts._windows.values())


# --- others --------------------------------------------------------------------------------------------------------


async def test_what_others_refuse_does_not_count_and_they_are_not_asked_again_before_then() -> None:
    puppet = Puppet()
    bench = Bench(1, puppet)
    puppet.wait_s = 12.0
    assert not await bench.begins()
    bench.now += 11.9
    assert not await bench.begins()
    assert puppet.started == [("one", 1)]
    with pytest.raises(RateLimited):
        bench.starts.foresee("one")
    bench.now += 0.2
    puppet.wait_s = 0.0
    assert await bench.begins()
    assert len(puppet.started) == 2
    assert (bench.counted("all"), bench.counted("one")) == (1, 0)


async def test_when_others_do_not_know_this_node_counts_by_itself_and_the_number_says_so() -> None:
    puppet = Puppet()
    bench = Bench(2, puppet)
    assert await bench.begins()
    puppet.wait_s = None
    assert await bench.begins()
    assert not await bench.begins()
    assert (bench.counted("all"), bench.counted("one")) == (1, 1)


async def test_those_who_ask_at_once_do_not_pass_together() -> None:
    """Also while the others take their time to answer."""

    class Slow(MemoryState):
        async def start(self, holder: str, most: int) -> float | None:
            await asyncio.sleep(0)
            return None

    bench = Bench(3, Slow())
    assert sum(await asyncio.gather(*(bench.begins() for _ in range(20)))) == 3


# --- at the door ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def limited(folder: Path, most: int, *, keys: tuple[str, ...] = ()) -> AsyncIterator[tuple[Running, Puppet]]:
    puppet = Puppet()
    settings = ServerSettings(max_starts_per_minute_per_key=most, api_keys=keys)
    async with running(folder, server=settings, shared=lambda numbers: puppet) as server:
        yield server, puppet


async def knock(server: Running, key: str = "") -> int:
    """The status of a handshake."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with aiohttp.ClientSession() as http:
        try:
            async with http.ws_connect(server.stream(), headers=headers):
                return 101
        except aiohttp.WSServerHandshakeError as error:
            refused = error
    if refused.status == 429:
        assert refused.headers is not None
        assert 1 <= int(refused.headers["Retry-After"]) <= WINDOW_S
    return refused.status


async def send(server: Running, *, expect: bool = False) -> tuple[int, str]:
    """Upload something; status and error code."""
    form = aiohttp.FormData()
    form.add_field("interviewId", "file")
    form.add_field("file", io.BytesIO(wav(silence(0.3) + voice(0.6))), filename="a.wav")
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{server.http}/transcription/upload?wait=20", data=form, expect100=expect) as answer,
    ):
        body = await answer.json()
        return answer.status, body.get("error", {}).get("code", "")


async def test_streams_are_refused_before_the_upgrade_and_a_browser_learns_why(tmp_path: Path) -> None:
    async with limited(tmp_path, 2) as (server, puppet), aiohttp.ClientSession() as http:
        assert [await knock(server) for _ in range(3)] == [101, 101, 429]
        assert puppet.started == [("", 2)] * 2
        async with http.get(server.http + "/transcription/stream/talk") as answer:
            error = (await answer.json())["error"]
            assert (answer.status, error["code"], error["retryable"]) == (429, "rate_limited", True)
            assert "2 streams and uploads within a minute" in error["message"]
        assert server.numbers.registry.get_sample_value("streamsrv_refused_total", {"code": "rate_limited"}) == 2


async def test_resumes_and_viewers_do_not_count(tmp_path: Path) -> None:
    async with limited(tmp_path, 1) as (server, puppet), peer(server) as speaker:
        async with viewer(server), peer(server, query=f"resume={speaker.events[0]['resume_token']}"):
            assert await knock(server) == 429
        assert len(puppet.started) == 1


async def test_what_is_refused_for_another_reason_does_not_count(tmp_path: Path) -> None:
    async with limited(tmp_path, 1) as (server, puppet), aiohttp.ClientSession() as http:
        for path in ("stream/talk", "stream/talk?language=xx-unknown", "stream/a%20b"):
            async with http.get(server.http + "/transcription/" + path) as answer:
                assert answer.status in (400, 426)
        async with http.post(server.http + "/transcription/upload", data=b"no form") as answer:
            assert answer.status in (400, 415)
        assert puppet.started == []
        assert await knock(server) == 101


async def test_uploads_count_and_are_refused_before_their_body_is_read(tmp_path: Path) -> None:
    async with limited(tmp_path, 2) as (server, _):
        assert await send(server) == (200, "")
        assert await knock(server) == 101
        assert await send(server, expect=True) == (429, "rate_limited")
        assert server.numbers.registry.get_sample_value("streamsrv_upload_bytes_total") == len(
            wav(silence(0.3) + voice(0.6))
        )
        assert not list((tmp_path / "uploads").iterdir())


async def test_each_key_has_its_own_and_without_keys_all_have_one(tmp_path: Path) -> None:
    async with limited(tmp_path / "keys", 1, keys=KEYS) as (server, puppet):
        first, second = KEYS
        assert [await knock(server, key) for key in (first, second, first, second)] == [101, 101, 429, 429]
        assert {holder for holder, _ in puppet.started} == set(KEYS)
    async with limited(tmp_path / "none", 1) as (server, _):
        assert [await knock(server, key) for key in ("made-up-1", "made-up-2")] == [101, 429]
