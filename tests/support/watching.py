"""Speakers and viewers of a running server, for tests of what the one hears of the other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import aiohttp

from tests.support.server import Running
from tests.support.speech import silence, voice

Json: TypeAlias = dict[str, Any]
Name: TypeAlias = tuple[str, int, int]
"""Stream, channel and segment of a final."""
WITHIN_S = 20.0
"""No answer takes longer, on the slowest machine."""
SENTENCE = voice(1.1) + silence(0.8)
"""Speech that makes one final."""


async def until(true: Callable[[], bool]) -> None:
    """Let the server work until something is so."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            if true():
                return
            await asyncio.sleep(0.005)


def cut_line(ws: aiohttp.ClientWebSocketResponse) -> None:
    """Lose the line without a close frame."""
    transport = ws._writer.transport
    assert transport is not None
    transport.abort()


def name_of(event: Json) -> Name:
    return event["stream"], event["channel"], event["segment"]


def finals_of(events: list[Json]) -> list[Name]:
    return [name_of(event) for event in events if event["type"] == "final"]


class End:
    """One peer on a WebSocket."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.events: list[Json] = []

    async def event(self) -> Json:
        message = await self.ws.receive(WITHIN_S)
        assert message.type is aiohttp.WSMsgType.TEXT, (message.type, message.data)
        event: Json = json.loads(message.data)
        self.events.append(event)
        return event

    async def until(self, kind: str, **wanted: object) -> Json:
        """Read up to an event of this kind that has these values."""
        while True:
            event = await self.event()
            if event["type"] == kind and wanted.items() <= event.items():
                return event

    async def end(self) -> int | None:
        """Read to the end; the close code."""
        while True:
            message = await self.ws.receive(WITHIN_S)
            if message.type is not aiohttp.WSMsgType.TEXT:
                return int(message.data) if message.type is aiohttp.WSMsgType.CLOSE else self.ws.close_code
            self.events.append(json.loads(message.data))

    # --- speakers -----------------------------------------------------------------------------------------------

    async def say(self, sentences: int = 1) -> None:
        """Speak, and wait until it is stored."""
        for _ in range(sentences):
            await self.ws.send_bytes(SENTENCE)
        await self.ws.send_json({"type": "flush"})
        await self.until("ack", flushed=True)

    async def murmur(self) -> None:
        """Speak until the first partial comes."""
        sound = voice(8.0)
        reading = asyncio.create_task(self.until("partial"))
        for at in range(0, len(sound), 3_200):
            if reading.done():
                break
            await self.ws.send_bytes(sound[at : at + 3_200])
            await asyncio.sleep(0.02)
        await reading

    async def finish(self) -> None:
        await self.ws.send_json({"type": "finish"})
        assert await self.end() == 1000


@asynccontextmanager
async def peer(server: Running, interview: str = "talk", query: str = "") -> AsyncIterator[End]:
    """A peer that has been greeted."""
    async with aiohttp.ClientSession() as http, http.ws_connect(server.stream(interview, query), heartbeat=None) as ws:
        end = End(ws)
        assert (await end.event())["type"] == "ready"
        yield end


@asynccontextmanager
async def viewer(server: Running, interview: str = "talk", query: str = "") -> AsyncIterator[End]:
    async with peer(server, interview, f"role=viewer&{query}" if query else "role=viewer") as end:
        yield end


async def stored(server: Running, interview: str = "talk") -> list[Name]:
    """What the store has, in its order of storing."""
    found = await server.store.finals_since(interview, 0, limit=500)
    return [(one.stream, one.final.channel, one.final.segment) for one in found]
