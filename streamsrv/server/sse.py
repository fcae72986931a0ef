"""``GET /transcription/{interview}/events``: what viewers are told, as Server-Sent Events."""

from __future__ import annotations

import asyncio
import secrets
import socket
from contextlib import suppress

from aiohttp import hdrs, web

from streamsrv import events
from streamsrv.dialects.viewer import Said, ViewerDialect
from streamsrv.errors import StreamsrvError
from streamsrv.runtime.fanout import Told, Watch
from streamsrv.runtime.troubles import abortion, farewell
from streamsrv.server.names import interview_of
from streamsrv.server.peer import SEND_WITHIN_S
from streamsrv.server.transcripts import STORE
from streamsrv.server.viewer import FANOUT, after_of, known

PING_S = 15.0
"""Silence after which a comment is sent, so that proxies keep the connection and a peer that has gone is found."""
RETRY_MS = 2_000
"""Pause of a client before it connects again."""
VANISHED_MS = 30_000
"""The kernel drops a connection whose data nobody acknowledges for so long."""


async def stream_events(request: web.Request) -> web.StreamResponse:
    """Tell until the peer leaves, or the interview is deleted, or the server goes."""
    interview = interview_of(request)
    last = request.headers.get("Last-Event-ID", "") or request.query.get("after", "")
    after = after_of(last)
    with request.app[FANOUT].watch(interview, after) as watching:
        status, streams = await known(request.app[STORE], interview)
        if status is None and after is not None:
            return web.Response(status=204)  # deleted since: the one answer after which a browser asks no more
        response = web.StreamResponse(
            headers={
                hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
                hdrs.CACHE_CONTROL: "no-store",
                "X-Accel-Buffering": "no",
            }
        )
        with suppress(ConnectionError):
            await response.prepare(request)
            dialect = ViewerDialect(f"s-{secrets.token_hex(6)}", interview)
            await _tell(request, response, watching, dialect, dialect.ready(status, streams))
    return response


async def _tell(
    request: web.Request, response: web.StreamResponse, watching: Watch, dialect: ViewerDialect, ready: Said
) -> None:
    _drop_when_vanished(request)
    try:
        await _write(response, f"retry: {RETRY_MS}\n{_block(None, ready)}")
        while True:
            told = await watching.next(PING_S)
            await _write(response, ": ping\n\n" if told is None else _block(told, dialect.say(told.stream, told.event)))
    except StreamsrvError as error:
        with suppress(TimeoutError):
            await _write(response, _block(None, dialect.say("", farewell(abortion(error)))))
            await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()


def _drop_when_vanished(request: web.Request) -> None:
    raw = None if request.transport is None else request.transport.get_extra_info("socket")
    if raw is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, VANISHED_MS)


async def _write(response: web.StreamResponse, text: str) -> None:
    """Send; a peer that takes nothing for ``SEND_WITHIN_S`` is given up.

    Raises:
        TimeoutError: it took nothing.
        ConnectionError: it has gone.
    """
    async with asyncio.timeout(SEND_WITHIN_S):
        await response.write(text.encode())


def _block(told: Told | None, said: Said) -> str:
    """One event; stored finals have an id to go on from.  JSON has no raw line breaks, so it is one line.

    A final that only a spool has gets none: when it is stored, others may stand before it that were told meanwhile.
    """
    kind, text = said
    named = ""
    if told is not None and isinstance(told.event, events.Final) and told.event.durable == "store":
        named = f"id: {told.stream}:{told.event.channel}:{told.event.segment}\n"
    return f"{named}event: {kind}\ndata: {text}\n\n"
