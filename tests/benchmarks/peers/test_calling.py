"""Calls to servers that follow a script: what is sent, what is written down, and how a call may end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from benchmarks.peers import calling
from benchmarks.peers.calling import Heard, speak
from benchmarks.peers.ears import Ear, Streamsrv, WhisperLive, WhisperLiveKit
from benchmarks.peers.speech import Call
from benchmarks.script import Spoken

CALL = Call(
    at_ms=0,
    samples=bytes(range(256)) * 50,
    truth=(Spoken(text="one", stop_ms=100), Spoken(text="two", stop_ms=300)),
)
"""0.4 s."""
Behaviour = Callable[[web.WebSocketResponse], Awaitable[None]]


@asynccontextmanager
async def serving(path: str, behave: Behaviour) -> AsyncIterator[int]:
    """A server on loopback whose every connection behaves so."""

    async def handle(request: web.Request) -> web.WebSocketResponse:
        connection = web.WebSocketResponse()
        await connection.prepare(request)
        await behave(connection)
        return connection

    app = web.Application()
    app.router.add_get(path, handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def called(path: str, behave: Behaviour, ear: Ear) -> Heard:
    async with serving(path, behave) as port, aiohttp.ClientSession() as http:
        return await speak(http, port, ear, CALL, asyncio.get_running_loop().time() + 0.05)


async def test_a_call_to_whisperlive() -> None:
    got: list[object] = []

    async def behave(connection: web.WebSocketResponse) -> None:
        got.append(json.loads(await connection.receive_str()))
        await connection.send_json({"uid": "race-1", "message": "SERVER_READY", "backend": "faster_whisper"})
        audio = b""
        while len(audio) < len(CALL.samples):
            audio += await connection.receive_bytes()
        got.append(audio[: len(CALL.samples)])
        for text in (" one", " one two", " one two"):
            segment = {"start": "0.000", "end": "0.400", "text": text, "completed": False}
            await connection.send_json({"uid": "race-1", "segments": [segment]})
        async for message in connection:
            got.append(message.data)
            if message.data == b"END_OF_AUDIO":
                return

    heard = await called("/", behave, WhisperLive(1))
    assert isinstance(got[0], dict)
    assert got[0]["uid"] == "race-1"
    assert got[1] == CALL.samples
    assert got[-1] == b"END_OF_AUDIO"
    assert [told.words for told in heard.told] == [[], ["one"], ["one", "two"]]
    assert heard.told[-1].at_ms >= 400
    assert heard.broken == ""


async def test_a_call_to_whisperlivekit_ends_with_an_empty_message() -> None:
    async def behave(connection: web.WebSocketResponse) -> None:
        await connection.send_json({"type": "config", "useAudioWorklet": True})
        line = {"speaker": 1, "text": " one two", "start": "0:00:00.00", "end": "0:00:00.40"}
        await connection.send_json({"status": "active_transcription", "lines": [line], "buffer_transcription": ""})
        async for message in connection:
            if message.type is WSMsgType.BINARY and not message.data:
                await connection.send_json({"type": "ready_to_stop"})
                return

    heard = await called("/asr", behave, WhisperLiveKit(1))
    assert [told.words for told in heard.told] == [["one", "two"]]
    assert heard.broken == ""


async def test_words_that_only_the_end_brings_are_heard_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calling, "PATIENCE_S", 0.2)

    async def behave(connection: web.WebSocketResponse) -> None:
        await connection.send_json({"type": "ready"})
        async for message in connection:
            if message.type is WSMsgType.TEXT:
                await connection.send_json({"type": "final", "segment": 0, "text": "one two"})
                await connection.send_json({"type": "closed"})
                return

    heard = await called("/transcription/stream/race-1", behave, Streamsrv(1))
    assert [told.words for told in heard.told] == [["one", "two"]]
    assert heard.told[0].at_ms >= 600


async def test_a_server_that_refuses_is_told() -> None:
    async def behave(connection: web.WebSocketResponse) -> None:
        await connection.send_json({"uid": "race-1", "status": "WAIT", "message": 0.5})

    assert (await called("/", behave, WhisperLive(1))).broken == "WhisperLive says WAIT"
    heard = await called("/elsewhere", behave, Streamsrv(1))
    assert heard.broken == "refused: 404"
    assert heard.told == []


async def test_a_server_that_hangs_up_in_the_middle_is_told() -> None:
    async def behave(connection: web.WebSocketResponse) -> None:
        await connection.send_json({"type": "ready"})
        await connection.receive_bytes()

    assert (await called("/transcription/stream/race-1", behave, Streamsrv(1))).broken == "the server hung up"
