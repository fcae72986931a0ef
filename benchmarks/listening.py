"""One speaker of the latency benchmark: sends a script in real time and writes down what comes back, and when."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import msgspec

from benchmarks.script import Script

ANSWER_WITHIN_S = 60.0
"""For the last words after the last audio."""


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the server."""

    at_ms: float
    """On the script's timeline: ms since its first sample was spoken."""
    message: dict[str, Any]


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """A script as one session heard it."""

    script: Script
    arrivals: list[Arrival]
    flush_ms: float
    """When ``flush`` was to be sent, on the same timeline: with the last frame."""
    late_ms: list[float]
    """How late each frame went out against its intended time: the speaker's own fault, and part of every latency."""


async def play(http: aiohttp.ClientSession, url: str, script: Script, frame_ms: int, *, after_s: float = 0.0) -> Heard:
    """Speak a script.  Open loop: frame ``i`` goes out at zero + (i + 1) frames, when its last sample was spoken, and
    that time is never moved because anybody was late.

    Args:
        url: of the stream.
        after_s: pause before the first sample.
    """
    loop = asyncio.get_running_loop()
    arrivals: list[Arrival] = []
    flushed = asyncio.Event()
    async with http.ws_connect(url, params={"sample_rate": str(script.rate_hz)}, max_msg_size=0) as socket:
        zero = loop.time() + 0.05 + after_s
        reader = asyncio.create_task(_read(socket, zero, arrivals, flushed))
        late_ms = await _speak(socket, script, frame_ms, zero)
        await socket.send_str('{"type":"flush"}')
        async with asyncio.timeout(ANSWER_WITHIN_S):
            await flushed.wait()
            await socket.send_str('{"type":"finish"}')
            await reader
    return Heard(script=script, arrivals=arrivals, flush_ms=len(late_ms) * float(frame_ms), late_ms=late_ms)


async def _speak(socket: aiohttp.ClientWebSocketResponse, script: Script, frame_ms: int, zero: float) -> list[float]:
    loop = asyncio.get_running_loop()
    size = 2 * script.rate_hz * frame_ms // 1000
    late_ms: list[float] = []
    for number, at in enumerate(range(0, len(script.samples), size), start=1):
        due = zero + number * frame_ms / 1000
        wait = due - loop.time()
        if wait > 0:
            await asyncio.sleep(wait)
        late_ms.append(1000 * (loop.time() - due))
        await socket.send_bytes(script.samples[at : at + size])
    return late_ms


async def _read(
    socket: aiohttp.ClientWebSocketResponse, zero: float, arrivals: list[Arrival], flushed: asyncio.Event
) -> None:
    """Until the server closes; whoever waits for the flush is let go then, too."""
    loop = asyncio.get_running_loop()
    async for received in socket:
        if received.type is aiohttp.WSMsgType.TEXT:
            message = json.loads(received.data)
            arrivals.append(Arrival(at_ms=1000 * (loop.time() - zero), message=message))
            if message["type"] == "ack" and message["flushed"]:
                flushed.set()
    flushed.set()
