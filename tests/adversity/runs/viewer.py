"""A viewer of a run: watches one interview across cut connections, from the last final it saw on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp

from tests.adversity.runs.ledger import Shown
from tests.adversity.runs.lines import HOST

AGAIN_S = 0.1
"""Pause before another attempt."""
SILENT_S = 2.0
"""A connection that answers no ping for so long is left."""
CLOSE_S = 0.2
"""How long its close is waited for then."""


async def watch(interview: str, port: int, seen: list[Shown], clock: Callable[[], float]) -> None:
    """Note every final; ends when it is cancelled."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENT_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        while True:
            try:
                await _watch(http, interview, port, seen, clock)
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass
            await asyncio.sleep(AGAIN_S)


async def _watch(
    http: aiohttp.ClientSession, interview: str, port: int, seen: list[Shown], clock: Callable[[], float]
) -> None:
    query = {"role": "viewer"}
    stored = [final for final in seen if final.durable == "store"]
    if stored:
        last = stored[-1]
        query["after"] = f"{last.stream}:{last.channel}:{last.segment}"
    url = f"ws://{HOST}:{port}/transcription/stream/{interview}"
    async with asyncio.timeout(SILENT_S):
        closing = aiohttp.ClientWSTimeout(ws_close=CLOSE_S)
        connecting = await http.ws_connect(url, params=query, heartbeat=SILENT_S, timeout=closing)
    async with connecting as ws:
        async for message in ws:
            if message.type is not aiohttp.WSMsgType.TEXT:
                return  # it was found broken
            event: dict[str, Any] = json.loads(message.data)
            if event["type"] != "final":
                continue
            seen.append(
                Shown(
                    at=clock(),
                    connection=event["session"],
                    again=False,
                    stream=event["stream"],
                    channel=event["channel"],
                    segment=event["segment"],
                    text=event["text"],
                    durable=event["durable"],
                )
            )
