"""Somebody who speaks, is away, and comes back with the token: to all of the stream, or to a clean no (row 19)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp

from tests.adversity.runs.ledger import Leaving, Shown
from tests.adversity.runs.lines import HOST
from tests.adversity.runs.plan import Leave
from tests.adversity.runs.rivals import WITHIN_S, resuming, vanish

AGAIN_S = 0.2
"""Pause before another attempt."""
HEARD_WITHIN_S = 3.0
"""How long it waits for its words before it leaves."""
BACK_WITHIN_S = 12.0
"""Somebody answers until then."""
STEP_S = 0.02
STEP_BYTES = 3_200
"""A tenth of a second of audio, at five times the speed."""
OVER = (404, 410)
BROKEN = (OSError, TimeoutError, TypeError, aiohttp.ClientError)
"""What a connection that ends somewhere raises; ``TypeError``: it ended where text was awaited."""


async def leave(planned: Leave, port: int, noted: Leaving, clock: Callable[[], float]) -> None:
    """All of it; a stream that never came about is left alone."""
    await asyncio.sleep(planned.at_s)
    async with aiohttp.ClientSession() as http:
        try:
            token = await _speak(http, planned, port, noted, clock)
        except BROKEN:
            token = ""
        if not token:
            return
        left = clock()
        await asyncio.sleep(planned.away_s)
        while not noted.ended and clock() - left < planned.away_s + BACK_WITHIN_S:
            try:
                await _return(http, planned, resuming(port, planned.interview, token), noted, clock() - left)
            except BROKEN:
                await asyncio.sleep(AGAIN_S)


async def _speak(
    http: aiohttp.ClientSession, planned: Leave, port: int, noted: Leaving, clock: Callable[[], float]
) -> str:
    """Say everything, wait until it is acknowledged, vanish; the token, empty when nobody gave one."""
    url = f"ws://{HOST}:{port}/transcription/stream/{planned.interview}?sample_rate={planned.speech.rate_hz}"
    async with asyncio.timeout(WITHIN_S):
        ws = await http.ws_connect(url)
        ready = json.loads(await ws.receive_str())
    noted.stream = ready["stream"]
    try:
        audio = planned.speech.audio()
        async with asyncio.timeout(HEARD_WITHIN_S):
            for at in range(0, len(audio), STEP_BYTES):
                await ws.send_bytes(audio[at : at + STEP_BYTES])
                await asyncio.sleep(STEP_S)
            await ws.send_json({"type": "flush"})
            while not noted.flushed:
                _note(json.loads(await ws.receive_str()), noted, clock())
    except BROKEN:
        pass
    finally:
        vanish(ws)
    return str(ready["resume_token"])


async def _return(http: aiohttp.ClientSession, planned: Leave, url: str, noted: Leaving, away_s: float) -> None:
    """Once: be let in, see all that was there, say again what is asked for, and finish; or be told that it is over."""
    try:
        async with asyncio.timeout(WITHIN_S):
            ws = await http.ws_connect(url)
            ready = json.loads(await ws.receive_str())
    except aiohttp.WSServerHandshakeError as refused:
        if refused.status in OVER:
            noted.ended, noted.away_s = str(refused.status), away_s
            return
        raise
    noted.resumed_at = ready["resume_at"]
    noted.again = [(ready["stream"], final["channel"], final["segment"]) for final in ready["finals"]]
    try:
        await ws.send_bytes(planned.speech.audio()[ready["resume_at"] * planned.speech.frame_bytes :])
        await ws.send_json({"type": "finish"})
        async with asyncio.timeout(HEARD_WITHIN_S):
            while not noted.ended:
                noted.ended = "closed" if json.loads(await ws.receive_str())["type"] == "closed" else ""
    finally:
        vanish(ws)


def _note(event: dict[str, Any], noted: Leaving, at: float) -> None:
    if event["type"] == "ack":
        noted.acked = max(noted.acked, event["samples"])
        noted.flushed = noted.flushed or event["flushed"]
    elif event["type"] == "final":
        shown = {name: event[name] for name in ("stream", "channel", "segment", "text", "durable")}
        noted.shown.append(Shown(at=at, connection=event["session"], again=False, **shown))
