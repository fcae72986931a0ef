"""What every socket needs: its pulse, its end, and being dropped without ceremony."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import WSMsgType

from streamsrv import telemetry
from streamsrv.server.socket import LINGER_BYTES, Socket

SEND_WITHIN_S = 10.0
"""A peer that takes nothing for so long is cut."""
CLOSE_WITHIN_S = 5.0
"""Wait for the peer's half of the closing handshake."""
QUIET_S = 1.0
"""From who has sent nothing for so long nothing is on its way, and the connection can be closed without a reset."""
LEAST_BYTES = 16_384
"""A message counts as so much at least while we linger: small ones cost no less to read."""
LEFT = (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING, WSMsgType.ERROR)
"""What tells that nothing more comes."""

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

    def __init__(self, ws: Socket, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.last_seen = loop.time()
        """When the peer last sent anything, on the loop's clock."""
        self.held = False
        """Whether we do not read from it at the moment; its silence is then our doing."""
        self.closing = False
        self._pinged = False
        self._ends: asyncio.TimerHandle | None = None
        self._looks: asyncio.TimerHandle | None = None
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
        """Say our half of the closing handshake.  The peer has ``CLOSE_WITHIN_S`` for its own; who reads goes on with
        ``linger``.

        Raises:
            ConnectionError: the peer is gone.
            TimeoutError: it takes nothing.
        """
        self.closing = True
        self._ends = self._loop.call_later(CLOSE_WITHIN_S, self._transport.abort)
        self._looks = self._loop.call_later(QUIET_S, self._look, self.last_seen)
        async with asyncio.timeout(CLOSE_WITHIN_S):
            await self._ws.say_bye(code, reason.encode())

    async def linger(self) -> None:
        """Throw away what comes until the peer's half has come, or the connection has ended.  From a flood that half is
        not waited for: bytes are cheaper than messages."""
        left = LINGER_BYTES
        while (message := await self._ws.receive()).type not in LEFT:
            self.last_seen = self._loop.time()
            left -= max(LEAST_BYTES, len(message.data))
            if left < 0:
                self._ws.deafen()
                break
            await asyncio.sleep(0)
        if self._ws.deaf is not None:
            await self._ws.deaf.rest(CLOSE_WITHIN_S, QUIET_S)

    def _look(self, seen: float) -> None:
        """Close the connection of a peer that says nothing, behind what is being sent."""
        if self._ws.deaf is None and self.last_seen == seen:
            self._transport.close()
        elif not self._transport.is_closing():
            self._looks = self._loop.call_later(QUIET_S, self._look, self.last_seen)

    def end(self) -> None:
        """There is nothing more to be said, nor to be waited for."""
        for timer in (self._ends, self._looks):
            if timer is not None:
                timer.cancel()
        if self._ends is not None or self._ws.deaf is not None:  # else it was the peer's close, which aiohttp answers
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
