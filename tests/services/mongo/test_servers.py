"""Two real servers on one MongoDB: one dies in mid-speech, the other goes on; nothing of a living one is touched."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from streamsrv.stores.mongo.settings import MongoSettings
from streamsrv.stores.mongo.store import MongoStore
from tests.services.browser import wav
from tests.services.servers import free_port, mongo_server
from tests.support.processes import Served
from tests.support.speech import silence, voice

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120), pytest.mark.usefixtures("database")]
TALK = silence(0.8) + voice(1.5) + silence(1.2) + voice(2.2, seed=1) + silence(1.4) + voice(1.1, seed=2) + silence(0.7)
PIECE = 6_400
"""Bytes of 200 ms."""


def environment(settings: MongoSettings, **more: str) -> dict[str, str]:
    return {
        "STREAMSRV_MONGO_URL": settings.url or "",
        "STREAMSRV_MONGO_DATABASE": settings.database,
        "STREAMSRV_SESSION_RESUME_WINDOW_S": "2",
        "STREAMSRV_MONGO_NODE_SILENT_S": "1.5",
        **more,
    }


@asynccontextmanager
async def served(folder: Path, settings: MongoSettings, **more: str) -> AsyncIterator[Served]:
    server = Served(folder, environment(settings, **more))
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


async def told(ws: aiohttp.ClientWebSocketResponse, kind: str) -> dict[str, Any]:
    async for message in ws:
        event: dict[str, Any] = json.loads(message.data)
        if event["type"] == kind:
            return event
    raise AssertionError(f"no {kind}")


async def send(ws: aiohttp.ClientWebSocketResponse, audio: bytes) -> None:
    for at in range(0, len(audio), PIECE):
        await ws.send_bytes(audio[at : at + PIECE])
        await asyncio.sleep(0.01)


async def heard(settings: MongoSettings, interview: str) -> list[tuple[int, int, str]]:
    store = MongoStore(settings)
    await store.open()
    try:
        return [(one.final.start, one.final.stop, one.final.text) for one in await store.finals(interview)]
    finally:
        await store.close()


async def state(server: Served, interview: str) -> str:
    """The interview's status, in the list of all."""
    _, body = await server.get("/transcription")
    return next(str(one["status"]) for one in body["interviews"] if one["id"] == interview)


async def completed(server: Served, interview: str) -> None:
    """Wait until it is."""
    for _ in range(200):
        if await state(server, interview) == "completed":
            return
        await asyncio.sleep(0.2)
    raise AssertionError("it is not completed")


async def whole(http: aiohttp.ClientSession, server: Served, interview: str) -> None:
    async with http.ws_connect(f"{server.ws}/transcription/stream/{interview}") as ws:
        await send(ws, TALK)
        await ws.send_json({"type": "finish"})
        await told(ws, "closed")


async def test_a_stream_goes_on_at_another_node_and_its_words_are_the_same(
    tmp_path: Path, settings: MongoSettings
) -> None:
    async with (
        served(tmp_path / "a", settings) as one,
        served(tmp_path / "b", settings) as two,
        aiohttp.ClientSession() as http,
    ):
        await whole(http, one, "plain")
        ws = await http.ws_connect(f"{one.ws}/transcription/stream/cut")
        ready = await told(ws, "ready")
        await send(ws, TALK[: 32_000 * 4])
        await told(ws, "final")
        await one.kill()
        async with http.ws_connect(f"{two.ws}/transcription/stream/cut?resume={ready['resume_token']}") as ws:
            again = await told(ws, "ready")
            assert again["stream"] == ready["stream"]
            await send(ws, TALK[again["resume_at"] * 2 :])
            await ws.send_json({"type": "finish"})
            await told(ws, "closed")
        assert await state(two, "cut") == "completed"
        plain = await heard(settings, "plain")
        assert len(plain) >= 3
        assert await heard(settings, "cut") == plain


async def test_streams_of_a_dead_node_are_ended_and_those_of_a_living_one_are_not(
    tmp_path: Path, settings: MongoSettings
) -> None:
    async with (
        served(tmp_path / "a", settings) as one,
        served(tmp_path / "b", settings) as two,
        aiohttp.ClientSession() as http,
    ):
        for server, interview in ((one, "dies"), (two, "lives")):
            ws = await http.ws_connect(f"{server.ws}/transcription/stream/{interview}")
            await told(ws, "ready")
            await send(ws, TALK[: 32_000 * 3])
        await one.kill()
        await completed(two, "dies")
        assert await state(two, "lives") == "live"
        await whole(http, two, "after")


async def test_a_second_server_on_the_folder_is_refused(tmp_path: Path, settings: MongoSettings) -> None:
    async with served(tmp_path / "a", settings):
        second = Served(tmp_path / "a", environment(settings))
        await second.start(until="")
        assert await second.end() == 3


async def test_the_address_is_told_nowhere(tmp_path: Path, settings: MongoSettings) -> None:
    address = f"mongodb://somebody:secret-word@127.0.0.1:{free_port()}/"
    more = {"STREAMSRV_MONGO_URL": address, "STREAMSRV_MONGO_START_WITHIN_S": "1"}
    server = Served(tmp_path / "a", environment(settings, **more))
    await server.start(until="")
    assert await server.end() == 3
    assert "secret-word" not in json.dumps(server.lines)


async def test_sigterm_while_it_waits_for_the_database(tmp_path: Path, settings: MongoSettings) -> None:
    more = {"STREAMSRV_MONGO_URL": f"mongodb://127.0.0.1:{free_port()}/", "STREAMSRV_MONGO_START_WITHIN_S": "60"}
    server = Served(tmp_path / "a", environment(settings, **more))
    await server.start(until="mongo.waits")
    server.signal(signal.SIGTERM)
    assert await server.end(10) == 0
    assert server.events()[-1] == "server.stopped_early"


async def test_the_database_away_in_mid_speech_loses_no_word(tmp_path: Path) -> None:
    """Words are shown from the spool meanwhile, and are in the database when it is back."""
    with mongo_server(tmp_path / "mongo") as mongo:
        mongo.start()
        settings = MongoSettings(url=mongo.url, database=mongo.database)
        more = {"STREAMSRV_MONGO_TIMEOUT_S": "0.5"}
        async with served(tmp_path / "a", settings, **more) as server, aiohttp.ClientSession() as http:
            await whole(http, server, "plain")
            async with http.ws_connect(f"{server.ws}/transcription/stream/away") as ws:
                await told(ws, "ready")
                mongo.kill()
                await send(ws, TALK)
                final = await told(ws, "final")
                assert final["durable"] == "spool"
                await asyncio.to_thread(mongo.start)
                await ws.send_json({"type": "finish"})
                await told(ws, "closed")
            assert await heard(settings, "away") == await heard(settings, "plain")
        await asyncio.to_thread(mongo.forget, mongo.database)


async def test_what_one_node_deletes_goes_on_the_other(tmp_path: Path, settings: MongoSettings) -> None:
    """A file that waits there is never heard, and a speaker there is sent away."""
    slow = {"HEAR_S": "1.5", "STREAMSRV_UPLOAD_MAX_RUNNING": "1"}
    async with (
        served(tmp_path / "a", settings, **slow) as one,
        served(tmp_path / "b", settings) as two,
        aiohttp.ClientSession() as http,
    ):
        jobs = [await _upload(http, one, name, tmp_path) for name in ("heard", "waits")]
        async with http.delete(f"{two.http}/transcription/jobs/{jobs[1]}") as refused:
            assert refused.status == 409
        async with http.ws_connect(f"{one.ws}/transcription/stream/waits") as ws:
            await told(ws, "ready")
            async with http.delete(f"{two.http}/transcription/waits") as gone:
                assert gone.status == 204
            await send(ws, TALK)
            error = await told(ws, "error")
            assert (error["code"], error["message"]) == ("stopped", "interview 'waits' was deleted")
            assert (await ws.receive()).data == 1008
        await one.said("job.deleted")
        assert (await two.get(f"/transcription/jobs/{jobs[1]}"))[0] == 404
        assert (await two.get("/transcription/waits"))[0] == 404
        assert len(await heard(settings, "heard")) >= 3
        assert list((tmp_path / "a" / "uploads").glob("*.upload")) == []


async def _upload(http: aiohttp.ClientSession, server: Served, interview: str, folder: Path) -> str:
    form = aiohttp.FormData()
    form.add_field("interviewId", interview)
    form.add_field("file", wav(folder / f"{interview}.wav", TALK).read_bytes(), filename="talk.wav")
    async with http.post(f"{server.http}/transcription/upload?wait=0", data=form) as answer:
        assert answer.status == 202, await answer.text()
        return str((await answer.json())["id"])
