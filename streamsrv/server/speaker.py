"""The peer's end of one socket: a bounded queue of events, one writer, and the pulse of the connection."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from aiohttp import web

from streamsrv import telemetry
from streamsrv.dialects.base import Dialect
from streamsrv.events import AnyEvent, Partial

MAX_EVENTS = 256
"""Events waiting for a peer that reads slowly.  A newer partial takes the place of the one of its segment; when the
queue is full of others, the peer is cut: it can resume, and what it missed is stored."""
SEND_WITHIN_S = 10.0
"""A peer that takes nothing for so long is cut."""
CLOSE_WITHIN_S = 5.0
"""Wait for the peer's half of the closing handshake."""

log = telemetry.logger("speaker")


class Speaker:
    """An ``Outlet`` on a WebSocket.

    Args:
        ws: prepared.
        transport: the connection below it, to be aborted when nothing else helps.
        dialect: puts events into messages, at the moment they are sent.
        now: monotonic seconds.
    """

    def __init__(
        self, ws: web.WebSocketResponse, transport: asyncio.Transport, dialect: Dialect, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.last_seen = loop.time()
        """When the peer last sent anything, on the loop's clock."""
        self.held = False
        """Whether we do not read from it at the moment; its silence is then our doing."""
        self.closing = False
        self._pinged = False
        self._ws = ws
        self._transport = transport
        self._dialect = dialect
        self._loop = loop
        self._queue: deque[AnyEvent] = deque()
        self._close: tuple[int, str] | None = None
        self._wake = asyncio.Event()
        self._writer = loop.create_task(self._write())

    # --- Outlet -------------------------------------------------------------------------------------------------

    def put(self, event: AnyEvent) -> None:
        if self.closing:
            return
        if isinstance(event, Partial) and self._replace(event):
            return
        if len(self._queue) >= MAX_EVENTS:
            self.cut("queue_full")
            return
        self._queue.append(event)
        self._wake.set()

    def close(self, code: int, reason: str) -> None:
        self.closing = True
        self._close = self._close or (code, reason)
        self._wake.set()

    def _replace(self, partial: Partial) -> bool:
        for at in range(len(self._queue) - 1, -1, -1):
            waiting = self._queue[at]
            if isinstance(waiting, Partial) and waiting.channel == partial.channel:
                if waiting.segment == partial.segment:
                    self._queue[at] = partial
                    return True
                return False
        return False

    # --- writer -------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        with suppress(ConnectionError, TimeoutError):
            while True:
                while self._queue:
                    await self._send(self._queue.popleft())
                if self._close is not None:
                    await self._shut(*self._close)
                    return
                self._wake.clear()
                await self._wake.wait()
        self._transport.abort()

    async def _send(self, event: AnyEvent) -> None:
        async with asyncio.timeout(SEND_WITHIN_S):
            for message in self._dialect.say(event, self._loop.time()):
                if isinstance(message, str):
                    await self._ws.send_str(message)
                else:
                    await self._ws.send_bytes(message)

    async def _shut(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self._ws.close(code=code, message=reason.encode())
        finally:
            self._transport.abort()

    def cut(self, why: str) -> None:
        """Drop the connection without ceremony."""
        if not self._transport.is_closing():
            log.info("speaker.cut", error=why)
        self.closing = True
        self._transport.abort()
        self._writer.cancel()

    async def done(self) -> None:
        """Wait until what was put, and the close, are sent, or the connection is gone."""
        if self._close is None:
            self._writer.cancel()
        with suppress(asyncio.CancelledError):
            await self._writer

    # --- pulse --------------------------------------------------------------------------------------------------

    def pulse(self, now: float, heartbeat_s: float) -> None:
        """Called a few times per heartbeat: ping a silent peer, cut one that has vanished."""
        silent = now - self.last_seen
        if self.held or self.closing or silent < heartbeat_s:
            self._pinged = False
        elif not self._pinged:
            self._pinged = True
            self._loop.create_task(self._ping())
        elif silent > heartbeat_s * 1.5:
            self.cut("vanished")

    async def _ping(self) -> None:
        with suppress(ConnectionError, RuntimeError, TimeoutError):
            async with asyncio.timeout(SEND_WITHIN_S):
                await self._ws.ping()
