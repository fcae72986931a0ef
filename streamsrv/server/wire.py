"""One HTTP connection as aiohttp serves it, with what it leaves to us: a cap on their number, error answers that
do not repeat the input, and a smaller send buffer in the kernel."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from typing import Any

from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestHandler

from streamsrv.server.answers import NAME, plain_refusal

KEEPALIVE_S = 10.0
"""A connection without a whole request for so long is closed, however slowly it sends one."""
LINGER_S = 1.0
"""How long the rest of a refused body is read, so that the refusal can arrive; then the connection is closed."""
SEND_BUFFER_BYTES = 131_072
"""Kernel send buffer of a socket: a client that never reads holds this much (the kernel doubles it), not megabytes."""


class Connection(RequestHandler):
    """One connection.  Over a cap it is closed before a byte is read."""

    __slots__ = ("_address",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._address: str | None = None
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        super().connection_made(transport)
        manager = self._manager
        if isinstance(manager, Connections):
            self._address = manager.enter(transport.get_extra_info("peername"))
            if len(manager.connections) > manager.most or manager.crowded(self._address):
                transport.abort()  # type: ignore[attr-defined]

    def connection_lost(self, exc: BaseException | None) -> None:
        manager = self._manager
        if isinstance(manager, Connections) and self._address is not None:
            manager.leave(self._address)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500 and exc is not None:
            self.logger.error("a request failed inside", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun; nothing can be added")
        text = "the server failed on this request" if status >= 500 else "this is not an HTTP request we understand"
        response = plain_refusal(status, "internal" if status >= 500 else "bad_http", text)
        response.headers[hdrs.SERVER] = NAME
        response.force_close()
        return response


class Connections(web.Server):
    """All connections of a server.

    Args:
        most: connections held at once; further ones are closed at once.
        most_per_address: the same, for those of one address, which is the socket's: what headers say never counts.
    """

    def __init__(self, *args: Any, most: int, most_per_address: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.most = most
        self._most_per_address = most_per_address
        self._held: Counter[str] = Counter()  # as many names as connections, at most

    def enter(self, peer: object) -> str:
        """Count a connection; the address it is counted under."""
        address = str(peer[0]) if isinstance(peer, tuple) and peer else ""
        self._held[address] += 1
        return address

    def leave(self, address: str) -> None:
        """A connection that was counted is gone."""
        self._held[address] -= 1
        if not self._held[address]:
            del self._held[address]

    def crowded(self, address: str) -> bool:
        """Whether the address holds more than its share."""
        return self._held[address] > self._most_per_address

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs the application on ``Connections``."""

    __slots__ = ("_most", "_most_per_address")

    def __init__(self, app: web.Application, *, most: int, most_per_address: int | None = None) -> None:
        super().__init__(
            app,
            access_log=None,
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
            auto_decompress=False,
            shutdown_timeout=1.0,
            # A peer that has gone left messages and perhaps a close frame, and they are read first.
            handler_cancellation=False,
            logger=logging.getLogger("aiohttp.server"),
        )
        self._most = most
        self._most_per_address = most_per_address or most

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return Connections(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            most=self._most,
            most_per_address=self._most_per_address,
            **made._kwargs,
        )
