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
from streamsrv.stores.base import Stream
from tests.adversity.arena import UTTERANCE, Talker
from tests.support.memory import MemoryStore
from tests.support.server import Running, running

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
    assert talker.ws._writer.transport is not None
    talker.ws._writer.transport.abort()
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
        async with asyncio.timeout(10 * WINDOW_S):
            while (await store.streams("talk"))[0].status != "ended":  # noqa: ASYNC110 -- nobody tells
                await asyncio.sleep(0.05)


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
    """Records the first stream and fails to say so, as a database does that dies behind the write."""

    async def begin_stream(
        self, *, interview: str, stream: str, token_hash: bytes, options: Options, engine: str, now_ms: int
    ) -> Stream:
        record = await super().begin_stream(
            interview=interview, stream=stream, token_hash=token_hash, options=options, engine=engine, now_ms=now_ms
        )
        if record.order == 1:
            raise StoreUnavailable("no answer")
        return record


async def test_a_stream_whose_token_nobody_was_given_is_not_waited_for(tmp_path: Path) -> None:
    """It would keep its interview from being completed for as long."""
    store = Mute()
    settings = SessionSettings(resume_window_s=60)
    async with running(tmp_path, session=settings, store=store) as server, aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(server.stream("talk"))
        assert refused.value.status == 503
        token = await cut(server, http)
        async with asyncio.timeout(10):
            while (await store.streams("talk"))[0].status != "ended":  # noqa: ASYNC110 -- nobody tells
                await asyncio.sleep(0.05)
        assert (await store.streams("talk"))[1].status == "live"
        again = Talker(await http.ws_connect(server.stream("talk", f"resume={token}")))
        assert (await again.until("ready"))["epoch"] == 2
        assert await again.finish() == 1000
