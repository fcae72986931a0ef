"""A speaker who is away has his time, and an outage of the store is not a part of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from streamsrv.commands import Options
from streamsrv.errors import StoreUnavailable
from streamsrv.runtime import orphans
from streamsrv.runtime.settings import SessionSettings
from streamsrv.stores.base import Stream, StreamKey
from tests.adversity.arena import UTTERANCE, Talker
from tests.support.memory import MemoryStore
from tests.support.server import Running, running
from tests.support.watching import cut_line

WINDOW_S, OUTAGE_S = 0.6, 1.5
SESSION = SessionSettings(resume_window_s=WINDOW_S)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "LOOK_S", 0.1)


async def cut(server: Running, http: aiohttp.ClientSession) -> str:
    """Say something, and lose the line; the token to come back with."""
    talker = Talker(await http.ws_connect(server.stream("talk")))
    await talker.until("ready")
    await talker.utter()
    cut_line(talker.ws)
    return str(talker.seen[0]["resume_token"])


async def outage(server: Running, http: aiohttp.ClientSession, store: MemoryStore, token: str) -> None:
    """Longer than the window; the speaker tries to come back all the time."""
    store.away = True
    end = asyncio.get_running_loop().time() + OUTAGE_S
    while asyncio.get_running_loop().time() < end:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(server.stream("talk", f"resume={token}"))
        assert refused.value.status == 503
        await asyncio.sleep(0.1)
    store.away = False


async def one_ends(store: MemoryStore, within_s: float = 10.0) -> None:
    """Wait until one of the streams has ended."""
    async with asyncio.timeout(within_s):
        while all(one.status != "ended" for one in await store.streams("talk")):  # noqa: ASYNC110 -- nobody tells
            await asyncio.sleep(0.05)


async def test_who_was_refused_while_the_store_was_away_comes_back_afterwards(tmp_path: Path) -> None:
    store = MemoryStore()
    async with running(tmp_path, session=SESSION, store=store) as server, aiohttp.ClientSession() as http:
        token = await cut(server, http)
        await outage(server, http, store, token)
        await asyncio.sleep(WINDOW_S / 2)
        again = Talker(await http.ws_connect(server.stream("talk", f"resume={token}")))
        ready = await again.until("ready")
        assert ready["epoch"] == 2
        await again.send((UTTERANCE * 2)[2 * ready["resume_at"] :])
        assert await again.finish() == 1000


async def test_it_is_ended_when_nobody_comes_though_the_store_is_back(tmp_path: Path) -> None:
    store = MemoryStore()
    async with running(tmp_path, session=SESSION, store=store) as server, aiohttp.ClientSession() as http:
        token = await cut(server, http)
        await outage(server, http, store, token)
        await one_ends(store, 10 * WINDOW_S)


async def test_a_stream_that_a_crash_left_is_waited_for_as_well(tmp_path: Path) -> None:
    store = MemoryStore()
    async with running(tmp_path, session=SessionSettings(resume_window_s=60), store=store) as server:
        async with aiohttp.ClientSession() as http:
            token = await cut(server, http)
        server.streams._drivers.clear()  # nobody holds it any more
    async with running(tmp_path, session=SESSION, store=store) as server, aiohttp.ClientSession() as http:
        await outage(server, http, store, token)
        again = Talker(await http.ws_connect(server.stream("talk", f"resume={token}")))
        assert (await again.until("ready"))["epoch"] == 2
        assert await again.finish() == 1000


class Mute(MemoryStore):
    """Says of the first stream that it was not recorded, and has recorded it, or does so later: as a database that dies
    behind the write, or a proxy that gives up."""

    def __init__(self, late_s: float) -> None:
        super().__init__()
        self.late_s = late_s
        self.first = True
        self.looks = 0

    async def left_streams(self) -> tuple[StreamKey, ...]:
        self.looks += 1
        return await super().left_streams()

    async def looked_at(self, times: int) -> None:
        """Wait for so many looks more."""
        wanted = self.looks + times
        async with asyncio.timeout(20):
            while self.looks < wanted:  # noqa: ASYNC110 -- nobody tells
                await asyncio.sleep(0.02)

    async def begin_stream(
        self, *, interview: str, stream: str, token_hash: bytes, options: Options, engine: str, now_ms: int
    ) -> Stream:
        doing = super().begin_stream(
            interview=interview, stream=stream, token_hash=token_hash, options=options, engine=engine, now_ms=now_ms
        )
        if not self.first:
            return await doing
        self.first = False
        asyncio.get_running_loop().call_later(self.late_s, asyncio.ensure_future, doing)
        raise StoreUnavailable("no answer")


@pytest.mark.parametrize("late_s", [0.0, 0.5])
async def test_a_stream_whose_token_nobody_was_given_is_not_waited_for(tmp_path: Path, late_s: float) -> None:
    """It would keep its interview from being completed for as long."""
    store = Mute(late_s)
    settings = SessionSettings(resume_window_s=60)
    async with running(tmp_path, session=settings, store=store) as server, aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(server.stream("talk"))
        assert refused.value.status == 503
        token = await cut(server, http)
        await one_ends(store)
        again = Talker(await http.ws_connect(server.stream("talk", f"resume={token}")))
        assert (await again.until("ready"))["epoch"] == 2
        assert await again.finish() == 1000


async def test_who_gives_up_while_his_stream_is_recorded_leaves_none_that_is_waited_for(tmp_path: Path) -> None:
    store = MemoryStore()
    async with running(tmp_path, session=SessionSettings(resume_window_s=60), store=store) as server:
        beginning = asyncio.create_task(server.streams.begin("talk", Options()))
        while not store.records:  # noqa: ASYNC110 -- recorded, and not known to be
            await asyncio.sleep(0)
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        await one_ends(store)


@pytest.mark.parametrize(("late_s", "status"), [(0.0, "ended"), (1.5, "live")])
async def test_it_is_looked_for_once_at_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late_s: float, status: str
) -> None:
    monkeypatch.setattr(orphans, "DISOWNED_S", 0.0)
    assert await status_after_looks(tmp_path, Mute(late_s)) == [status]


async def test_no_more_than_so_many_of_them_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "MAX_DISOWNED", 0)
    assert await status_after_looks(tmp_path, Mute(0.0)) == ["live"]


async def status_after_looks(folder: Path, store: Mute) -> list[str]:
    """Of the streams there are, some looks after a beginning failed."""
    settings = SessionSettings(resume_window_s=60)
    async with running(folder, session=settings, store=store) as server, aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await http.ws_connect(server.stream("talk"))
        await asyncio.sleep(store.late_s)
        await store.looked_at(5)
        return [one.status for one in await store.streams("talk")]
