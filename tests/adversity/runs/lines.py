"""A TCP line of our own between any two parts, which can be cut, held, slowed, half closed and closed to newcomers.

Loopback only.  What harms a line harms every connection on it; connections made later are whole again unless the harm
says that it lasts.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Literal, TypeAlias

PIECE_BYTES = 16_384
"""Bytes a pump takes at once, and so the most one direction of a connection holds."""
MOST_CONNECTIONS = 1_000
"""Connections of one line; one more is reset."""
HOST = "127.0.0.1"

Way: TypeAlias = Literal["up", "down"]
"""Up: from who connected to who listens."""
Target: TypeAlias = Callable[[], Awaitable[int | None]]
"""The port a new connection leads to; ``None``: nobody is there."""


def to_port(port: int) -> Target:
    """A line that leads to one place."""

    async def target() -> int:
        return port

    return target


class Connection:
    """One connection through a line: two pumps, and what is done to them."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self._writers = {"up": far, "down": near}
        self._halved: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None

    async def pump(self, way: Way, reader: asyncio.StreamReader) -> None:
        """Carry one direction until its end, which is handed on as a half close."""
        writer = self._writers[way]
        try:
            while data := await reader.read(PIECE_BYTES):
                await self._carry(writer, data)
            await self._open.wait()
            self.half_close(way)
        except (ConnectionError, OSError):
            self.reset()

    async def _carry(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        while data and not writer.transport.is_closing():
            await self._open.wait()
            piece, data = data, b""
            if self.bytes_per_s is not None:
                size = max(1, int(self.bytes_per_s / 50))
                piece, data = piece[:size], piece[size:]
                await asyncio.sleep(len(piece) / self.bytes_per_s)
            if writer in self._halved:
                return  # it was told that nothing more comes
            writer.write(piece)
            await writer.drain()

    def hold(self) -> None:
        """Nothing gets through any more, and nobody is told."""
        self._open.clear()

    def let_go(self) -> None:
        self._open.set()

    def reset(self) -> None:
        """Break both ends, with what is on its way."""
        for writer in self._writers.values():
            _reset(writer)

    def close(self) -> None:
        """Close both ends without a word of the protocol above."""
        for writer in self._writers.values():
            writer.close()

    def half_close(self, way: Way) -> None:
        """Say in one direction that nothing more comes; the other one goes on."""
        writer = self._writers[way]
        self._halved.add(writer)
        with suppress(OSError, RuntimeError):
            writer.write_eof()


class Line:
    """Listens on a port of its own and leads to a target.

    Args:
        target: asked for each new connection.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.refusing = False
        """Newcomers are reset."""
        self.holding = False
        """Newcomers are taken, and nothing comes of it."""
        self.carried = 0
        """Connections ever taken."""

    async def start(self) -> Line:
        self._server = await asyncio.start_server(self._take, HOST, 0)
        return self

    @property
    def port(self) -> int:
        if self._server is None:
            raise ValueError("the line was not started")
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connections(self) -> tuple[Connection, ...]:
        return tuple(self._connections)

    def mend(self) -> None:
        """Newcomers are served again; what may still be harmed is broken."""
        self.refusing = self.holding = False
        for connection in self.connections:
            connection.reset()

    async def close(self) -> None:
        """Break everything and stop listening."""
        if self._server is not None:
            self._server.close()
        for connection in self.connections:
            connection.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing or len(self._connections) >= MOST_CONNECTIONS:
            return _reset(writer)
        # A task of our own: the one asyncio makes of a coroutine complains when it is cancelled.
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = await self._target()
        try:
            if port is None:
                raise ConnectionRefusedError
            far_reader, far = await asyncio.open_connection(HOST, port)
        except OSError:
            return _reset(writer)
        self.carried += 1
        connection = Connection(writer, far)
        self._connections.add(connection)
        if self.holding:
            connection.hold()
        try:
            await asyncio.gather(connection.pump("up", reader), connection.pump("down", far_reader))
        finally:
            self._connections.discard(connection)
            connection.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
