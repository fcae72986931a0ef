"""Two channels, cut again and again on real sockets: each goes on where its own finals end, and nothing is lost."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import aiohttp
import pytest

from streamsrv.client import Final, Options, Ready, Reconnecting, Transcription
from streamsrv.runtime import keeper, spool
from streamsrv.server.speaker import Speaker
from streamsrv.server.stream import SPEAKERS
from streamsrv.stores.base import Resumed
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.support.recordings import interleaved
from tests.support.server import Running, running
from tests.support.speech import silence, voice

RATE_HZ = 8_000
OPTIONS = Options(sample_rate=RATE_HZ, channels=2, multichannel=True)
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
Told: TypeAlias = list[tuple[int, int, str]]


def line(seed: int, pauses: tuple[float, ...]) -> bytes:
    return b"".join(
        silence(pause, rate=RATE_HZ) + voice(1.0 + 0.4 * (at % 3), seed=seed + at, rate=RATE_HZ)
        for at, pause in enumerate(pauses)
    ) + silence(1.0, rate=RATE_HZ)


LEFT = line(0, (0.8, 1.6, 1.3, 2.1, 1.2))
RIGHT = line(9, (1.9, 2.4, 1.1, 1.7))
SIZE = min(len(LEFT), len(RIGHT))
TALK = interleaved(LEFT[:SIZE], RIGHT[:SIZE])


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "PAUSES_S", (0.02,))
    monkeypatch.setattr(spool, "PAUSE_S", 0.02)


async def say(server: Running, disturb: Callable[[int], None] = lambda at: None) -> tuple[Told, list[object]]:
    """Say everything at some ten times its pace; the finals in the order they came, and all other events."""
    finals: Told = []
    others: list[object] = []
    async with Transcription(server.http, "talk", OPTIONS) as stream:

        async def read() -> None:
            async for event in stream.events():
                if isinstance(event, Final):
                    finals.append((event.channel, event.segment, event.text))
                else:
                    others.append(event)

        reading = asyncio.create_task(read())
        for number, at in enumerate(range(0, len(TALK), 3_200)):
            await stream.send(TALK[at : at + 3_200])
            disturb(number)
            await asyncio.sleep(0.01)
        await stream.finish()
        await reading
    return finals, others


async def stored(server: Running) -> Told:
    return [(kept.final.channel, kept.final.segment, kept.final.text) for kept in await server.store.finals("talk")]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
async def test_cuts_lose_and_double_nothing_on_any_channel(tmp_path: Path, seed: int) -> None:
    async with running(tmp_path / "undisturbed") as server:
        wanted = sorted((await say(server))[0])
        assert len({channel for channel, *_ in wanted}) == 2
        assert await stored(server) == wanted
    chance = random.Random(seed)
    moments = sorted(chance.sample(range(4, len(TALK) // 3_200), 4))
    store = SqliteStore(SqliteSettings(data_dir=str(tmp_path / "cut"), busy_timeout_s=0.01))
    other: list[sqlite3.Connection] = []

    def disturb(at: int) -> None:
        """Cut the line; every second seed has the store away around the second cut."""
        if seed % 2 and at == moments[1] - 3:
            other.append(sqlite3.connect(store.path, isolation_level=None))
            other[0].execute("BEGIN IMMEDIATE")
        if at in moments:
            speakers: set[Speaker] = server.app[SPEAKERS]
            for speaker in tuple(speakers):
                speaker.cut("test")
        if other and at == moments[1] + 6:
            other[0].close()

    async with running(tmp_path / "cut", store=store) as server:
        finals, others = await say(server, disturb)
        print(f"seed {seed}, cuts at {moments}")  # noqa: T201 -- shown by pytest when it fails
        assert sorted(finals) == wanted
        assert await stored(server) == wanted
        assert len(set(finals)) == len(finals)
        assert sum(isinstance(event, Reconnecting) for event in others) >= 2, "cuts that lie close together are one"
        for ready in [event for event in others if isinstance(event, Ready)][1:]:
            assert [channel.channel for channel in ready.channels] == [0, 1]
            assert all(channel.kept_to * 2 <= SIZE for channel in ready.channels)


async def test_each_channel_is_told_its_own_place(tmp_path: Path) -> None:
    async with running(tmp_path) as server, aiohttp.ClientSession() as http:
        async with http.ws_connect(server.stream("talk", "sample_rate=8000&channels=2&multichannel=true")) as ws:
            token = (await ws.receive_json())["resume_token"]
            for at in range(0, len(TALK) // 2, 3_200):
                await ws.send_bytes(TALK[at : at + 3_200])
            finals: list[object] = []
            while len(finals) < 3:
                event = await ws.receive_json()
                if event["type"] == "final":
                    finals.append(event)
            transport = ws.get_extra_info("socket")
            transport.shutdown(2)
        async with http.ws_connect(server.stream("talk", f"resume={token}")) as ws:
            ready = await ws.receive_json()
        for channel in ready["channels"]:
            ours = [final for final in ready["finals"] if final["channel"] == channel["channel"]]
            assert channel["next_segment"] == len(ours)
            assert channel["kept_to"] == pytest.approx(max((f["stop_ms"] for f in ours), default=0) * 8, abs=8)
        assert ready["resume_at"] <= min(channel["kept_to"] for channel in ready["channels"]) + RATE_HZ * 2
        assert len({channel["kept_to"] for channel in ready["channels"]}) == 2


async def test_a_resume_that_is_overtaken_does_not_take_the_stream_from_the_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as server, aiohttp.ClientSession() as http:
        async with http.ws_connect(server.stream("talk")) as ws:
            token = (await ws.receive_json())["resume_token"]
            ws.get_extra_info("socket").shutdown(2)
        resume, taken, go = server.store.resume_stream, asyncio.Event(), asyncio.Event()

        async def held_up(stream: str, token_hash: bytes, *, now_ms: int) -> Resumed:
            resumed = await resume(stream, token_hash, now_ms=now_ms)
            if not taken.is_set():  # the first one: the store's answer takes its time
                taken.set()
                await go.wait()
            return resumed

        monkeypatch.setattr(server.store, "resume_stream", held_up)
        early = asyncio.create_task(
            http.get(server.http + f"/transcription/stream/talk?resume={token}", headers=UPGRADE)
        )
        await taken.wait()
        async with http.ws_connect(server.stream("talk", f"resume={token}")) as ws:
            assert (await ws.receive_json())["epoch"] == 3
            go.set()
            async with await early as refused:
                assert refused.status == 409
                assert (await refused.json())["error"]["code"] == "superseded"
            await ws.send_str('{"type":"finish"}')
            told = [message.json()["type"] async for message in ws]
            assert told[-1] == "closed"
            assert ws.close_code == 1000
