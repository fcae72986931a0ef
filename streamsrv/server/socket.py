"""The WebSocket as this server wants it, and the checks before an upgrade."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import HttpVersion11, WSCloseCode, hdrs, web

from streamsrv.dialects.native import BINARY_BYTES
from streamsrv.errors import BadRequest, UpgradeRequired
from streamsrv.server.auth import SUBPROTOCOL

BROKEN = {
    WSCloseCode.PROTOCOL_ERROR: ("protocol_error", "a WebSocket frame breaks RFC 6455"),
    WSCloseCode.INVALID_TEXT: ("bad_message", "a text message is not UTF-8"),
    WSCloseCode.MESSAGE_TOO_BIG: ("message_too_big", f"a message is larger than {BINARY_BYTES} bytes"),
}
"""Close codes aiohttp chooses by itself, and what we say before."""


class Socket(web.WebSocketResponse):
    """No compression (it costs 100 kB a session), pings answered by us, and a word before a broken peer is closed."""

    def __init__(self) -> None:
        super().__init__(
            compress=False, max_msg_size=BINARY_BYTES + 1, autoping=False, timeout=5.0, protocols=(SUBPROTOCOL,)
        )
        self.before_broken: Callable[[str, str], Awaitable[None]] | None = None

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        told = self.before_broken
        if told is not None and code in BROKEN and not self.closed:
            self.before_broken = None
            await told(*BROKEN[WSCloseCode(code)])
        return await super().close(code=code, message=message, drain=drain)


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
