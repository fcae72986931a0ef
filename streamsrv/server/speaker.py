"""The peer's end of one socket: a bounded queue of events, one writer, and the pulse of the connection."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from streamsrv import telemetry
from streamsrv.dialects.base import Dialect
from streamsrv.events import AnyEvent, Partial
from streamsrv.server.peer import SEND_WITHIN_S, Peer
from streamsrv.server.socket import Socket

MAX_EVENTS = 256
"""Events waiting for a peer that reads slowly.  A newer partial takes the place of the one of its segment; when the
queue is full of others, the peer is cut: it can resume, and what it missed is stored."""

log = telemetry.logger("speaker")


class Speaker(Peer):
    """An ``Outlet`` on a WebSocket.

    Args:
        ws: prepared.
        transport: the connection below it, to be aborted when nothing else helps.
        dialect: puts events into messages, at the moment they are sent.
        now: monotonic seconds.
    """

    cut_line = "speaker.cut"

    def __init__(
        self, ws: Socket, transport: asyncio.Transport, dialect: Dialect, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(ws, transport, loop)
        self._dialect = dialect
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
        try:
            while True:
                while self._queue:
                    await self._send(self._queue.popleft())
                if self._close is not None:
                    await self.shut(*self._close)
                    return
                self._wake.clear()
                await self._wake.wait()
        except ConnectionError:
            self._transport.abort()
        except TimeoutError:
            self.cut("stalled")
        except Exception as error:  # an event that cannot be put into words must not leave a session without a voice
            log.error("speaker.failed", error=error)
            self._transport.abort()

    async def _send(self, event: AnyEvent) -> None:
        async with asyncio.timeout(SEND_WITHIN_S):
            for message in self._dialect.say(event, self._loop.time()):
                if isinstance(message, str):
                    await self._ws.send_str(message)
                else:
                    await self._ws.send_bytes(message)

    def cut(self, why: str) -> None:
        super().cut(why)
        if asyncio.current_task() is not self._writer:
            self._writer.cancel()

    async def done(self) -> None:
        """Called by who reads, when it is over: wait until what was put, and the close, are sent and the peer has left,
        or time is up."""
        if self._close is None:
            self._writer.cancel()
        if self._close is not None or self._ws.deaf is not None:
            await self.linger()
        with suppress(asyncio.CancelledError):
            await self._writer
        self.end()
