"""What every socket needs: its pulse, its end, and being dropped without ceremony."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import web

from streamsrv import telemetry
from streamsrv.server.socket import Socket

SEND_WITHIN_S = 10.0
"""A peer that takes nothing for so long is cut."""
CLOSE_WITHIN_S = 5.0
"""Wait for the peer's half of the closing handshake."""

log = telemetry.logger("peer")


class Peer:
    """One end of a WebSocket.

    Args:
        ws: prepared.
        transport: the connection below it, to be aborted when nothing else helps.
        loop: of the connection.
    """

    cut_line = "peer.cut"
    """What is logged when it is cut."""

    def __init__(
        self, ws: web.WebSocketResponse, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.last_seen = loop.time()
        """When the peer last sent anything, on the loop's clock."""
        self.held = False
        """Whether we do not read from it at the moment; its silence is then our doing."""
        self.closing = False
        self._pinged = False
        self._ws = ws
        self._transport = transport
        self._loop = loop

    def cut(self, why: str) -> None:
        """Drop the connection without ceremony."""
        if not self._transport.is_closing():
            log.info(self.cut_line, error=why)
        self.closing = True
        self._transport.abort()

    async def shut(self, code: int, reason: str) -> None:
        """Close it, with the handshake where the peer takes part in it."""
        self.closing = True
        try:
            async with asyncio.timeout(CLOSE_WITHIN_S):
                if isinstance(self._ws, Socket):
                    self._ws.before_broken = None  # what there is to say was said
                await self._ws.close(code=code, message=reason.encode())
        finally:
            self._transport.abort()

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
