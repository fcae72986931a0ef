"""One speaker of the latency benchmark: sends a script in real time and writes down what comes back, and when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
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


async def play(
    http: aiohttp.ClientSession, url: str, script: Script, frame_ms: int, *, after_s: float = 0.0, pace: float = 1.0
) -> Heard:
    """Speak a script.  Open loop: frame ``i`` goes out at zero + (i + 1) frames, when its last sample was spoken, and
    that time is never moved because anybody was late.

    Args:
        url: of the stream.
        after_s: pause before the first sample.
        pace: seconds of audio sent per second.
    """
    socket = await http.ws_connect(url, params={"sample_rate": str(script.rate_hz)}, max_msg_size=0)
    count = -(-len(script.samples) // _bytes(script, frame_ms))
    dues = [after_s + frame * frame_ms / 1000 / pace for frame in range(1, count + 1)]
    return await converse(socket, script, frame_ms, dues, first_s=after_s)


async def converse(
    socket: aiohttp.ClientWebSocketResponse,
    script: Script,
    frame_ms: int,
    dues: Sequence[float],
    *,
    first_s: float = 0.0,
) -> Heard:
    """Speak a script into an open socket, and close it.

    Args:
        dues: seconds from now at which each frame is to be sent.
        first_s: seconds from now at which the first sample is spoken: zero of the script's timeline.
    """
    loop = asyncio.get_running_loop()
    arrivals: list[Arrival] = []
    flushed = asyncio.Event()
    async with socket:
        now = loop.time() + 0.05
        reader = asyncio.create_task(_read(socket, now + first_s, arrivals, flushed))
        late_ms = await _speak(socket, script, frame_ms, [now + due for due in dues])
        await socket.send_str('{"type":"flush"}')
        async with asyncio.timeout(ANSWER_WITHIN_S):
            await flushed.wait()
            await socket.send_str('{"type":"finish"}')
            await reader
    return Heard(script=script, arrivals=arrivals, flush_ms=len(late_ms) * float(frame_ms), late_ms=late_ms)


def _bytes(script: Script, frame_ms: int) -> int:
    return 2 * script.rate_hz * frame_ms // 1000


async def _speak(
    socket: aiohttp.ClientWebSocketResponse, script: Script, frame_ms: int, dues: Sequence[float]
) -> list[float]:
    loop = asyncio.get_running_loop()
    size = _bytes(script, frame_ms)
    late_ms: list[float] = []
    for due, at in zip(dues, range(0, len(script.samples), size), strict=True):
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
