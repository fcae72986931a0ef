"""A line to the server that swallows one reply and then breaks: what was asked is done, and nobody hears of it.

It also holds finals back on their way.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

_SESSION_COMMANDS = (b"hello", b"ismaster", b"isMaster", b"ping", b"endSessions")


class Line:
    """Counts the replies to requests of ours; the driver's own questions pass."""

    def __init__(self) -> None:
        self.port = 0
        self.replies = 0
        self.swallow: int | None = None
        """Number, from 1, of the reply that does not come through."""
        self.broken = 0
        self.commands: list[str] = []
        """What was asked, by the names of MongoDB's commands."""
        self.clear = asyncio.Event()
        """While it is not set, finals on their way to the server wait."""
        self.clear.set()

    @property
    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/"

    def arm(self, number: int | None) -> None:
        """Swallow the reply of this number, counted from now on; ``None``: none."""
        self.replies, self.broken, self.swallow = 0, 0, number
        self.commands.clear()

    async def carry(self, target: int, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        """One connection: a request, its reply, the next request."""
        with suppress(OSError, asyncio.IncompleteReadError):
            far, there = await asyncio.open_connection("127.0.0.1", target)
            try:
                while True:
                    asked = await _message(near)
                    ours = not any(word in asked[:64] for word in _SESSION_COMMANDS)
                    if ours:
                        self.commands.append(_command(asked))
                    if b"segments" in asked[:64] and _command(asked) == "insert":
                        await self.clear.wait()
                    there.write(asked)
                    answer = await _message(far)
                    if ours:
                        self.replies += 1
                        if self.replies == self.swallow:
                            self.broken += 1
                            return
                    back.write(answer)
                    await back.drain()
            finally:
                there.close()
                back.close()


async def _message(reader: asyncio.StreamReader) -> bytes:
    """One message of MongoDB's protocol: its length comes first."""
    head = await reader.readexactly(4)
    return head + await reader.readexactly(struct.unpack("<i", head)[0] - 4)


def _command(message: bytes) -> str:
    """Of an OP_MSG: behind the header, the flags, and the type and length of the document and of its first field."""
    return message[26 : message.index(b"\0", 26)].decode()


@asynccontextmanager
async def line_to(url: str) -> AsyncIterator[Line]:
    line = Line()
    target = urlsplit(url).port or 27_017
    server = await asyncio.start_server(lambda near, back: line.carry(target, near, back), "127.0.0.1", 0)
    line.port = server.sockets[0].getsockname()[1]
    async with server:
        yield line
