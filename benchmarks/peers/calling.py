"""One call: speaks in real time to a server, whichever it is, and writes down what was committed, and when.

Open loop: a frame goes out when its last sample is spoken, and that time is never moved because anybody was late.
After the last word the room stays quiet until everything is committed or patience ends: some servers forget what they
have not decoded when the speaker says it is over.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import msgspec

from benchmarks.peers.ears import Ear, Refused
from benchmarks.peers.speech import Call
from benchmarks.tape import RATE_HZ

FRAME_MS = 100
"""What a browser's recorder sends; fewer messages leave the machine to the servers."""
FRAME_BYTES = 2 * RATE_HZ * FRAME_MS // 1000
READY_WITHIN_S = 60.0
PATIENCE_S = 10.0
"""After the last sample; what is not committed then is lost."""
OVER_WITHIN_S = 5.0
HUNG_UP = "the server hung up"


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What was committed at a time."""

    at_ms: float
    """Since the call's first sample was spoken."""
    words: list[str]
    """All of the call so far."""


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """A call as its server heard it."""

    call: Call
    told: list[Told]
    late_ms: float
    """The speaker's own worst lateness: part of every latency."""
    broken: str = ""
    """Why it ended early."""


class _Line:
    """An open connection and what came back on it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, ear: Ear, call: Call, zero: float) -> None:
        self.told: list[Told] = []
        self.ready = asyncio.Event()
        self.complete = asyncio.Event()
        self.lost = ""
        self._socket, self._ear, self._wanted, self._zero = socket, ear, len(call.truth), zero

    async def send(self, frame: bytes) -> None:
        try:
            await self._socket.send_bytes(frame)
        except ConnectionError:  # what was heard until then still counts
            self.lost = self.lost or HUNG_UP

    async def read(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async for received in self._socket:
                if received.type is not aiohttp.WSMsgType.TEXT:
                    continue
                message = json.loads(received.data)
                if not self.ready.is_set() and self._ear.ready(message):
                    self.ready.set()
                words = self._ear.hear(message)
                if words is not None:
                    self.told.append(Told(at_ms=1000 * (loop.time() - self._zero), words=list(words)))
                    if len(words) >= self._wanted:
                        self.complete.set()
                if self._ear.over(message):
                    return
            self.lost = HUNG_UP
        except Refused as refusal:
            self.lost = str(refusal)
        finally:
            self.ready.set()
            self.complete.set()


async def speak(http: aiohttp.ClientSession, port: int, ear: Ear, call: Call, zero: float) -> Heard:
    """Make a call.

    Args:
        zero: the loop's time of its first sample; past it, as when the server was slow to open, the audio waits.
    """
    try:
        async with _open(http, port, ear, call, zero) as line:
            late_ms = await _say(line, call, zero)
            return Heard(call=call, told=line.told, late_ms=late_ms, broken=line.lost)
    except (aiohttp.ClientError, ConnectionError, TimeoutError) as failure:
        why = f"refused: {failure.status}" if isinstance(failure, aiohttp.WSServerHandshakeError) else repr(failure)
        return Heard(call=call, told=[], late_ms=0.0, broken=why)


@asynccontextmanager
async def _open(http: aiohttp.ClientSession, port: int, ear: Ear, call: Call, zero: float) -> AsyncIterator[_Line]:
    async with http.ws_connect(f"ws://127.0.0.1:{port}{ear.path}", max_msg_size=0, compress=0) as socket:
        line = _Line(socket, ear, call, zero)
        reader = asyncio.create_task(line.read())
        try:
            if ear.opening is not None:
                await socket.send_str(ear.opening)
            async with asyncio.timeout(READY_WITHIN_S):
                await line.ready.wait()
            yield line
            await _end(socket, ear, reader)
        finally:
            reader.cancel()


async def _say(line: _Line, call: Call, zero: float) -> float:
    """Everything, then silence until it is heard; the worst lateness in ms."""
    loop = asyncio.get_running_loop()
    frames = [call.samples[at : at + FRAME_BYTES] for at in range(0, len(call.samples), FRAME_BYTES)]
    quiet = [bytes(FRAME_BYTES)] * round(1000 * PATIENCE_S / FRAME_MS)
    worst = 0.0
    for number, frame in enumerate([*frames, *quiet], start=1):
        if line.lost or (number > len(frames) and line.complete.is_set()):
            break
        due = zero + number * FRAME_MS / 1000
        wait = due - loop.time()
        if wait > 0:
            await asyncio.sleep(wait)
        worst = max(worst, 1000 * (loop.time() - due))
        await line.send(frame)
    return worst


async def _end(socket: aiohttp.ClientWebSocketResponse, ear: Ear, reader: asyncio.Task[None]) -> None:
    try:
        await (socket.send_str(ear.ending) if isinstance(ear.ending, str) else socket.send_bytes(ear.ending))
        async with asyncio.timeout(OVER_WITHIN_S):
            await reader
    except (TimeoutError, ConnectionError):
        return
