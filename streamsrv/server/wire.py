"""One HTTP connection as aiohttp serves it, with what it leaves to us: a cap on their number, error answers that
do not repeat the input, and a smaller send buffer in the kernel."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from streamsrv.server.answers import plain_refusal

SEND_BUFFER_BYTES = 131_072
"""Kernel send buffer of a socket: a client that never reads holds this much (the kernel doubles it), not megabytes."""


class Connection(RequestHandler):
    """One connection.  Over the cap it is closed before a byte is read."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        super().connection_made(transport)
        manager = self._manager
        if isinstance(manager, Connections) and len(manager.connections) > manager.most:
            transport.abort()  # type: ignore[attr-defined]

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun; nothing can be added")
        if status >= 500 and exc is not None:
            self.logger.error("a request failed inside", exc_info=exc)
        text = "the server failed on this request" if status >= 500 else "this is not an HTTP request we understand"
        response = plain_refusal(status, "internal" if status >= 500 else "bad_http", text)
        response.force_close()
        return response


class Connections(web.Server):
    """All connections of a server.

    Args:
        most: connections held at once; further ones are closed at once.
    """

    def __init__(self, *args: Any, most: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.most = most

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs the application on ``Connections``."""

    __slots__ = ("_most",)

    def __init__(self, app: web.Application, *, most: int) -> None:
        super().__init__(
            app,
            access_log=None,
            keepalive_timeout=10.0,
            auto_decompress=False,
            shutdown_timeout=1.0,
            handler_cancellation=True,
            logger=logging.getLogger("aiohttp.server"),
        )
        self._most = most

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return Connections(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            most=self._most,
            **made._kwargs,
        )
