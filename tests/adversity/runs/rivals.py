"""Those who come with a speaker's own token while it speaks, one or ten at once (row 16)."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import suppress

import aiohttp

from tests.adversity.runs.ledger import Rival
from tests.adversity.runs.lines import HOST
from tests.adversity.runs.speaker import Noting

WITHIN_S = 3.0
"""A handshake takes no longer."""


def resuming(port: int, interview: str, token: str) -> str:
    """Where a stream is resumed."""
    return f"ws://{HOST}:{port}/transcription/stream/{interview}?resume={token}"


async def usurp(stream: Noting, count: int, port: int, lasts_s: float, clock: Callable[[], float]) -> list[Rival]:
    """So many take the stream at once, stay for so long and vanish; its speaker comes back each time it loses it."""
    if stream.ready is None:
        return []
    stream.expect_rivals(count)
    url = resuming(port, stream.interview, stream.ready.resume_token)
    rivals = (_rival(url, stream.ready.stream, lasts_s, clock) for _ in range(count))
    return list(await asyncio.gather(*rivals))


async def _rival(url: str, stream: str, lasts_s: float, clock: Callable[[], float]) -> Rival:
    at, epoch, code = clock(), 0, 0
    try:
        async with aiohttp.ClientSession() as http:
            async with asyncio.timeout(WITHIN_S):
                ws = await http.ws_connect(url)
                epoch = int(json.loads(await ws.receive_str())["epoch"])
                at = clock()
            try:
                async with asyncio.timeout(lasts_s):
                    while not ws.closed:
                        await ws.receive()
                code = ws.close_code or 0
            except TimeoutError:
                pass  # it has the stream, and vanishes
            vanish(ws)
            return Rival(at=at, stream=stream, status=101, epoch=epoch, code=code)
    except aiohttp.WSServerHandshakeError as refused:
        return Rival(at=clock(), stream=stream, status=refused.status)
    except (OSError, TimeoutError, TypeError, aiohttp.ClientError):  # a line that broke
        return Rival(at=at, stream=stream, status=101 if epoch else 0, epoch=epoch)


def vanish(ws: aiohttp.ClientWebSocketResponse) -> None:
    """Break the connection without a word of the protocol, so that the server keeps the stream for a resume."""
    taken: socket.socket | None = ws.get_extra_info("socket")
    if taken is not None:
        with suppress(OSError):
            taken.shutdown(socket.SHUT_RDWR)
