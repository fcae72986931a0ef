"""What the door says when the engine has measured that it bears no more, and while it loads."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from streamsrv.runtime.scheduler import Scheduler
from streamsrv.runtime.scheduling.pace import Load
from streamsrv.server.health import ENGINES
from tests.support.recordings import wav
from tests.support.server import Running, running
from tests.support.speech import silence, voice
from tests.support.windows import ScriptedEngine

FULL = Load(sessions=2.0, load=0.8, stretch=1.0, share=0.6, oldest_final_s=0.0, within_s=1.0)


class Loading(ScriptedEngine):
    """An engine that loads for as long as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.healthy = False
        self.loaded = asyncio.Event()

    async def start(self) -> None:
        await self.loaded.wait()
        await super().start()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def event(socket: aiohttp.ClientWebSocketResponse, kind: str) -> dict[str, object]:
    async with asyncio.timeout(20):
        while True:
            told: dict[str, object] = await socket.receive_json()
            if told["type"] == kind:
                return told


async def refusal(here: Running, client: aiohttp.ClientSession, query: str = "") -> aiohttp.WSServerHandshakeError:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await client.ws_connect(here.stream("late", query))
    return refused.value


async def test_a_newcomer_is_refused_before_the_upgrade_and_told_why_and_when(
    tmp_path: Path, client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, engine=ScriptedEngine()) as here:
        first = await client.ws_connect(here.stream("one"))
        token = (await event(first, "ready"))["resume_token"]
        monkeypatch.setattr(Scheduler, "load", property(lambda scheduler: FULL))
        second = await client.ws_connect(here.stream("two"))
        refused = await refusal(here, client)
        assert refused.status == 503
        assert refused.headers is not None
        assert int(refused.headers["Retry-After"]) >= 1
        async with client.get(here.stream("late").replace("ws:", "http:"), headers=upgrade()) as answer:
            body = await answer.json()
        assert body["error"]["code"] == "full"
        assert "hears 2 sessions, and bears 2" in body["error"]["message"]
        async with client.get(f"{here.http}/health/ready") as answer:
            assert (await answer.json(), answer.status) == ({"ready": True}, 200)
        await first.close(code=aiohttp.WSCloseCode.INTERNAL_ERROR)
        back = await client.ws_connect(here.stream("one", f"resume={token}"))
        assert (await event(back, "ready"))["type"] == "ready"
        for socket in (second, back):
            await socket.send_json({"type": "finish"})
            await event(socket, "closed")


def upgrade() -> dict[str, str]:
    return {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }


async def test_speakers_are_greeted_while_the_engine_loads_and_nothing_they_said_is_lost(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    engine = Loading()
    async with running(tmp_path, engine=engine, loading=True) as here:
        starting = asyncio.create_task(here.app[ENGINES].start())
        socket = await client.ws_connect(here.stream("early"))
        await event(socket, "ready")
        async with client.get(f"{here.http}/health/ready") as answer:
            assert (await answer.json(), answer.status) == ({"ready": False}, 503)
        await socket.send_bytes(silence(0.5) + voice(3.0) + silence(1.0))
        await socket.send_json({"type": "finish"})
        await event(socket, "speech_stopped")
        assert engine.batches == []
        engine.loaded.set()
        await starting
        final = await event(socket, "final")
        assert str(final["text"]).split()[:3] == ["w1", "w2", "w3"]
        await event(socket, "closed")
        async with client.get(f"{here.http}/health/ready") as answer:
            assert answer.status == 200
        async with client.get(f"{here.http}/metrics") as answer:
            assert 'streamsrv_window_seconds_count{rank="final"} 1.0' in await answer.text()


async def test_who_comes_into_a_troubled_server_is_told_at_once(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    async with running(tmp_path, engine=ScriptedEngine()) as here:
        scheduler = here.app[ENGINES].default
        assert isinstance(scheduler, Scheduler)
        scheduler._pace.stretch = 1.6
        scheduler._tell("load", True)
        socket = await client.ws_connect(here.stream("one"))
        await event(socket, "ready")
        told = await event(socket, "degraded")
        assert (told["reason"], told["active"]) == ("load", True)
        told = await event(socket, "degraded")
        assert (told["reason"], told["active"]) == ("load", False), "and when it is over"
        await socket.close()


async def test_thirty_speakers_at_once_get_their_own_words(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    engine = ScriptedEngine()
    async with running(tmp_path, engine=engine) as here:

        async def speak(number: int) -> str:
            socket = await client.ws_connect(here.stream(f"i-{number}"))
            await event(socket, "ready")
            await socket.send_bytes(silence(0.5 * number) + voice(2.0) + silence(1.0))
            await socket.send_json({"type": "finish"})
            final = await event(socket, "final")
            await event(socket, "closed")
            return str(final["text"]).split()[0]

        said = await asyncio.gather(*(speak(number) for number in range(1, 31)))
    assert said == [f"w{number}" for number in range(1, 31)]
    assert engine.faults == []
    assert max(len(batch) for batch in engine.batches) > 1


async def test_a_file_is_heard_in_finals_alone(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """Also by an engine whose partials can be finals: they would be heard before those of people who speak."""
    engine = ScriptedEngine(batch=1)
    engine.abilities = msgspec.structs.replace(engine.abilities, conclusive=True, whole_finals=False)
    engine.script = lambda windows: time.sleep(0.04)  # the file has to wait for room in the ring
    talk = b"".join(voice(1.7, seed=seed) + silence(1.0) for seed in range(40))
    async with running(tmp_path, engine=engine) as here:
        form = aiohttp.FormData({"interviewId": "talk", "file": io.BytesIO(wav(talk))})
        async with client.post(f"{here.http}/transcription/upload?wait=20", data=form) as answer:
            assert answer.status == 200
    heard = [window.final for batch in engine.batches for window in batch]
    assert len(heard) == 40
    assert all(heard)
