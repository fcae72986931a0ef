"""The WebSocket as this server wants it, and the checks before an upgrade.

A TCP connection that is closed over what was not read yet is reset, and then the peer loses what it has not read.  So
we close no connection by ourselves before the peer has had its time: we say our half of the closing handshake, throw
away what still comes, and wait for the peer's (``Peer.linger``).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable

from aiohttp import HttpVersion11, WSCloseCode, WSMsgType, hdrs, web
from aiohttp.abc import AbstractStreamWriter

from streamsrv.dialects.native import BINARY_BYTES
from streamsrv.errors import BadRequest, UpgradeRequired
from streamsrv.server.auth import SUBPROTOCOL

BROKEN = {
    WSCloseCode.PROTOCOL_ERROR: ("protocol_error", "a WebSocket frame breaks RFC 6455"),
    WSCloseCode.INVALID_TEXT: ("bad_message", "a text message is not UTF-8"),
    WSCloseCode.MESSAGE_TOO_BIG: ("message_too_big", f"a message is larger than {BINARY_BYTES} bytes"),
}
"""Close codes aiohttp chooses by itself, and what we say before."""


LINGER_BYTES = 16_777_216
"""Of what still comes behind our last word so much is read, more than the kernels of both sides hold."""


class Socket(web.WebSocketResponse):
    """No compression (it costs 100 kB a session), pings answered by us, and a word before a broken peer is closed."""

    def __init__(self) -> None:
        super().__init__(
            compress=False, max_msg_size=BINARY_BYTES + 1, autoping=False, timeout=5.0, protocols=(SUBPROTOCOL,)
        )
        self.before_broken: Callable[[str, str], Awaitable[None]] | None = None
        self.deaf: Deaf | None = None
        """Takes what comes, from our last word on, of a peer that breaks the protocol or floods."""
        self._bye = False
        self._line: asyncio.Transport | None = None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        writer = await super().prepare(request)
        self._line = request.transport
        return writer

    async def say_bye(self, code: int, reason: bytes) -> None:
        """Send our close frame, once; the peer's is still to be received.

        Raises:
            ConnectionError: the peer is gone.
        """
        if not self._bye:
            self._bye = True
            self.before_broken = None  # what there is to say was said
            await self.send_frame(struct.pack("!H", code) + reason, WSMsgType.CLOSE)

    def deafen(self) -> None:
        """Hear no more messages; the connection lives on until the peer ends it, or somebody here does."""
        if self.deaf is None and self._line is not None:
            self.deaf = Deaf.put_on(self._line)

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        """aiohttp calls it when the peer's close frame came, when the peer is broken, and behind the handler."""
        if self._bye:
            return False
        if code not in BROKEN or self.closed:
            return await super().close(code=code, message=message, drain=drain)
        self.deafen()
        if (told := self.before_broken) is not None:
            self.before_broken = None
            await told(*BROKEN[WSCloseCode(code)])
        await self.say_bye(code, message)
        return True


class Deaf(asyncio.Protocol):
    """In the place of a connection's protocol: throws away what comes, up to ``LINGER_BYTES``, then lets it wait.

    Args:
        heard: the protocol before, which still hears of all else.
        line: below both.
    """

    def __init__(self, heard: asyncio.BaseProtocol, line: asyncio.Transport) -> None:
        self.gone = asyncio.Event()
        """The connection has ended."""
        self._heard = heard
        self._line = line
        self._left = LINGER_BYTES

    @classmethod
    def put_on(cls, line: asyncio.Transport) -> Deaf:
        deaf = cls(line.get_protocol(), line)
        line.set_protocol(deaf)
        line.resume_reading()  # a queue of messages that was full may have stopped it
        return deaf

    async def rest(self, within_s: float, quiet_s: float) -> None:
        """Wait until the connection has ended, nothing came for ``quiet_s``, or time is up."""
        loop = asyncio.get_running_loop()
        end, before = loop.time() + within_s, -1
        while loop.time() < end and (before != self._left or self._left < 0):
            before = self._left
            try:
                async with asyncio.timeout(min(quiet_s, max(0.0, end - loop.time()))):
                    await self.gone.wait()
                return
            except TimeoutError:
                pass

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self._line.pause_reading()

    def pause_writing(self) -> None:
        self._heard.pause_writing()

    def resume_writing(self) -> None:
        self._heard.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        self._heard.connection_lost(exc)


def check_upgrade(request: web.Request) -> None:
    """Refuse what is not a WebSocket handshake of version 13.

    Raises:
        UpgradeRequired: not an upgrade, or another version.
        BadRequest: a handshake with a broken key.
    """
    if request.headers.get(hdrs.UPGRADE, "").strip().lower() != "websocket":
        raise UpgradeRequired("this path speaks WebSocket only", hint="connect with ws:// or wss://")
    if request.headers.get(hdrs.SEC_WEBSOCKET_VERSION) != "13":
        raise UpgradeRequired("only WebSocket version 13 is spoken", hint="send 'Sec-WebSocket-Version: 13'")
    key = request.headers.get(hdrs.SEC_WEBSOCKET_KEY, "")
    if (
        request.method != hdrs.METH_GET
        or request.version < HttpVersion11
        or not key.isascii()
        or not Socket().can_prepare(request).ok
    ):
        raise BadRequest("the WebSocket handshake is broken", hint="send Connection, Upgrade and Sec-WebSocket-Key")
