"""A peer that speaks HTTP and WebSocket by hand, so that it can also speak them wrongly."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import struct
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
WITHIN_S = 10.0
"""No answer of the server takes longer, on the slowest machine."""

Json: TypeAlias = dict[str, Any]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP response."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def code(self) -> str:
        """The error code in it."""
        return str(json.loads(self.body)["error"]["code"])


class End(msgspec.Struct, frozen=True, kw_only=True):
    """How a WebSocket ended."""

    code: int | None
    """Of the close frame; ``None`` when the connection just ended."""
    reason: str
    events: list[Json]
    """Text messages before."""

    @property
    def error(self) -> str | None:
        """The code of the ``error`` that came last before the end."""
        return str(self.events[-1]["code"]) if self.events and self.events[-1]["type"] == "error" else None


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bool = True,
    length: int | None = None,
) -> bytes:
    """One frame.  ``length`` is what the header claims, when it lies."""
    size = len(payload) if length is None else length
    head = bytearray([fin << 7 | rsv << 4 | opcode])
    bit = mask << 7
    if size < 126:
        head.append(bit | size)
    elif size < 65_536:
        head += struct.pack("!BH", bit | 126, size)
    else:
        head += struct.pack("!BQ", bit | 127, size)
    if not mask:
        return bytes(head) + payload
    # A mask of zeros is a mask: the bytes stay readable, and large frames cost nothing.
    return bytes(head) + bytes(4) + payload


def close_frame(code: int | None = None, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def text(body: Json | str) -> bytes:
    return frame(TEXT, (body if isinstance(body, str) else json.dumps(body)).encode())


def handshake(path: str, port: int, changes: Mapping[str, str | None] | None = None, *, method: str = "GET") -> bytes:
    """An upgrade request; ``changes`` replace headers, ``None`` leaves one out."""
    headers: dict[str, str | None] = {
        "Host": f"127.0.0.1:{port}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        **(changes or {}),
    }
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items() if v is not None)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Raw:
    """One TCP connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        self.port = port
        self._reader = reader
        self.writer = writer
        self.events: list[Json] = []

    @classmethod
    async def connect(cls, port: int, *, receive_buffer: int | None = None, source: str | None = None) -> Raw:
        """Connect.

        Args:
            receive_buffer: bytes the kernel takes for us; we read ahead no more than that.
            source: address to come from.
        """
        peer = socket.socket()
        peer.setblocking(False)
        limit = 2**16
        if receive_buffer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            limit = 1_024
        if source is not None:
            peer.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=peer, limit=limit)
        return cls(reader, writer, port)

    async def send(self, data: bytes) -> None:
        """Send as far as the server takes it; a server that has closed takes nothing more."""
        try:
            self.writer.write(data)
            await asyncio.wait_for(self.writer.drain(), WITHIN_S)
        except ConnectionError:
            pass

    async def answer(self, *, body: bool = True) -> Answer:
        """The next HTTP response."""
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), WITHIN_S)
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        size = int(headers.get("content-length", 0)) if body else 0
        content = await asyncio.wait_for(self._reader.readexactly(size), WITHIN_S)
        return Answer(status=int(first.split()[1]), headers=headers, body=content)

    async def ask(self, request: bytes) -> Answer:
        await self.send(request)
        return await self.answer()

    async def upgrade(self, path: str = "/transcription/stream/raw", **changes: str | None) -> Raw:
        """Shake hands and read ``ready``; ``changes`` are headers with ``_`` for ``-``."""
        named = {name.replace("_", "-"): value for name, value in changes.items()}
        answer = await self.ask(handshake(path, self.port, named))
        assert answer.status == 101, answer
        await self.event()
        return self

    async def frame(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload.

        Raises:
            EOFError, ConnectionError: the connection has ended.
        """
        first, second = await asyncio.wait_for(self._reader.readexactly(2), WITHIN_S)
        size = second & 127
        if size == 126:
            (size,) = struct.unpack("!H", await self._reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self._reader.readexactly(8))
        return first & 15, await asyncio.wait_for(self._reader.readexactly(size), WITHIN_S)

    async def event(self) -> Json:
        """The next text message."""
        while True:
            opcode, payload = await self.frame()
            if opcode == TEXT:
                event: Json = json.loads(payload)
                self.events.append(event)
                return event
            assert opcode in (PING, PONG), opcode

    async def end(self) -> End:
        """Read to the close frame, or to the end of the connection."""
        try:
            while True:
                opcode, payload = await self.frame()
                if opcode == TEXT:
                    self.events.append(json.loads(payload))
                elif opcode == CLOSE:
                    code = struct.unpack("!H", payload[:2])[0] if payload else None
                    return End(code=code, reason=payload[2:].decode(), events=self.events)
        except (EOFError, ConnectionError):
            return End(code=None, reason="", events=self.events)

    async def gone(self) -> bytes:
        """Wait until the server has ended the connection; what it still says."""
        rest = b""
        try:
            while more := await asyncio.wait_for(self._reader.read(65_536), WITHIN_S):
                rest += more
        except ConnectionError:
            pass
        return rest

    def reset(self) -> None:
        """Leave with RST."""
        peer: socket.socket = self.writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        """Leave without a word."""
        self.writer.close()
