"""A server that does what a test tells it, on a real socket, and a clock that is wound by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from aiohttp import WSMsgType, web

from streamsrv.client.transcription import TICK_S

Script: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HandTime:
    """Pauses between attempts are over at once and noted; the watch over a connection goes one step for each ``tick``.

    Attributes:
        pauses: seconds of every pause, in order.
    """

    def __init__(self) -> None:
        self._now = 1000.0
        self._waiting: list[asyncio.Future[None]] = []
        self.pauses: list[float] = []

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds == TICK_S:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future
            return
        self.pauses.append(seconds)
        self._now += seconds
        await asyncio.sleep(0)

    async def tick(self, times: int = 1) -> None:
        """Let five seconds pass, ``times`` times, and the watch look after each."""
        for _ in range(times):
            await until(lambda: any(not future.done() for future in self._waiting))
            self._now += TICK_S
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)
            await turns()


async def turns(count: int = 50) -> None:
    """Give every task that can run its turns."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(true: Callable[[], bool]) -> None:
    """Give turns until something holds; the suite's own limit ends a wait in vain."""
    while not true():  # noqa: ASYNC110 - what is waited for lies in a socket, behind no event of ours
        await asyncio.sleep(0)


class Call:
    """The server's end of one connection."""

    def __init__(self, request: web.Request, ws: web.WebSocketResponse) -> None:
        self.request, self.ws = request, ws
        self.audio = bytearray()
        self.left_with: int | None = None
        """The code of the client's close frame; ``None``: there was none."""
        self._seq = 0

    async def say(self, kind: str, **fields: object) -> None:
        """Send one event."""
        message = {"type": kind, "session": "s-1", "stream": "st-1", "seq": self._seq, **fields}
        self._seq += 1
        await self.ws.send_str(json.dumps(message))

    async def ready(self, **fields: object) -> None:
        """Say ``ready`` for a stream at its start, unless ``fields`` say otherwise."""
        await self.say("ready", **{"resume_token": "st-1.token", "resume_at": 0, "interview": "talk", **fields})

    async def final(self, segment: int, text: str, **fields: object) -> None:
        await self.say("final", **{"channel": 0, "segment": segment, "text": text, "stop_ms": 0, **fields})

    async def hear(self, total: int) -> None:
        """Read until ``total`` bytes of audio came over this connection."""
        while len(self.audio) < total:
            message = await self.ws.receive()
            assert message.type is WSMsgType.BINARY, f"wanted audio, got {message}"
            self.audio += message.data

    async def command(self) -> str:
        """The type of the next text message; audio before it is kept in ``audio``."""
        while True:
            message = await self.ws.receive()
            if message.type is WSMsgType.TEXT:
                return str(json.loads(message.data)["type"])
            assert message.type is WSMsgType.BINARY, f"wanted a command, got {message}"
            self.audio += message.data

    async def gone(self) -> None:
        """Read until the client has left."""
        while (message := await self.ws.receive()).type not in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING):
            if message.type is WSMsgType.BINARY:
                self.audio += message.data
        if message.type is WSMsgType.CLOSE:
            self.left_with = message.data

    def cut(self) -> None:
        """Break the connection without a word."""
        transport = self.request.transport
        assert transport is not None
        transport.abort()

    async def end(self, finals: int = 0) -> None:
        """Answer ``finish``."""
        assert await self.command() == "finish"
        await self.say("closed", cause="finish", audio_ms=1234, finals=finals)
        await self.ws.close(code=1000)


class Scripted:
    """Plays one script for each connection, in order, and keeps what came.

    Attributes:
        url: where it listens.
        calls: the connections so far.
        requests: their requests, refused ones too.
    """

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self.url = ""
        self.calls: list[Call] = []
        self.requests: list[web.Request] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        return await self._scripts.pop(0)(request)


def talk(script: Callable[[Call], Awaitable[None]]) -> Script:
    """A script that takes the connection and does ``script`` with it."""

    async def play(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(autoclose=False, autoping=True, max_msg_size=1_048_576)
        await ws.prepare(request)
        call = Call(request, ws)
        request.app[SERVER].calls.append(call)
        await script(call)
        return ws

    return play


def refuse(status: int, code: str, *, headers: dict[str, str] | None = None, **fields: object) -> Script:
    """A script that answers by HTTP status."""

    async def play(_: web.Request) -> web.StreamResponse:
        error = {"code": code, "message": f"no: {code}", "hint": "do otherwise", **fields}
        return web.json_response({"error": error}, status=status, headers=headers)

    return play


SERVER = web.AppKey("server", Scripted)


@asynccontextmanager
async def serving(*scripts: Script) -> AsyncIterator[Scripted]:
    """A running server on a free port."""
    server = Scripted(*scripts)
    app = web.Application()
    app[SERVER] = server
    app.router.add_get("/transcription/stream/{interview:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"ws://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()
