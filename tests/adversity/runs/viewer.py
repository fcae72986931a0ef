"""Viewers of a run: each watches one interview across cut connections, from the last stored final it saw on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp

from tests.adversity.runs.ledger import Shown, Watching
from tests.adversity.runs.lines import HOST
from tests.adversity.runs.odds import ViewerKind

AGAIN_S = 0.1
"""Pause before another attempt."""
SILENT_S = 2.0
"""A connection that answers no ping for so long is left."""
QUIET_S = 4.0
"""So is one of Server-Sent Events after so much silence: it has no pings of its own, and its server's come seldom."""
CLOSE_S = 0.2
"""How long its close is waited for then."""


async def watch(kind: ViewerKind, watching: Watching, port: int, clock: Callable[[], float]) -> None:
    """Note every final; ends when it is cancelled."""
    quiet_s = QUIET_S if kind == "events" else None
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENT_S, sock_read=quiet_s)
    follow = _socket if kind == "socket" else _events
    async with aiohttp.ClientSession(timeout=timeout) as http:
        while True:
            try:
                async for event in follow(http, watching, port):
                    if event["type"] == "final":
                        watching.shown.append(_shown(event, clock()))
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass
            await asyncio.sleep(AGAIN_S)


def _last(watching: Watching, name: str) -> dict[str, str]:
    """The last final that was shown as stored, under this name; empty when there is none."""
    stored = [final for final in watching.shown if final.durable == "store"]
    return {name: f"{stored[-1].stream}:{stored[-1].channel}:{stored[-1].segment}"} if stored else {}


async def _socket(http: aiohttp.ClientSession, watching: Watching, port: int) -> AsyncIterator[dict[str, Any]]:
    query = {"role": "viewer"} | _last(watching, "after")
    url = f"ws://{HOST}:{port}/transcription/stream/{watching.interview}"
    async with asyncio.timeout(SILENT_S):
        closing = aiohttp.ClientWSTimeout(ws_close=CLOSE_S)
        connecting = await http.ws_connect(url, params=query, heartbeat=SILENT_S, timeout=closing)
    async with connecting as ws:
        async for message in ws:
            if message.type is not aiohttp.WSMsgType.TEXT:
                return  # it was found broken
            yield json.loads(message.data)


async def _events(http: aiohttp.ClientSession, watching: Watching, port: int) -> AsyncIterator[dict[str, Any]]:
    """As a browser's ``EventSource`` does; a block that was cut off in its middle is none."""
    url = f"http://{HOST}:{port}/transcription/{watching.interview}/events"
    async with http.get(url, headers=_last(watching, "Last-Event-ID")) as answer:
        if answer.status != 200:
            return
        data = ""
        async for line in answer.content:
            if line.startswith(b"data: "):
                data = line[6:].decode()
            elif line == b"\n" and data:
                yield json.loads(data)
                data = ""


def _shown(event: dict[str, Any], at: float) -> Shown:
    return Shown(
        at=at,
        connection=event["session"],
        again=False,
        stream=event["stream"],
        channel=event["channel"],
        segment=event["segment"],
        text=event["text"],
        durable=event["durable"],
    )
