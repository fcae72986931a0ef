"""The line that can be harmed, and the balancer: each harm does what its name says, and no more."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.adversity.runs.balancer import Balancer
from tests.adversity.runs.lines import HOST, Line, to_port

SOON_S = 0.15
"""Long enough for anything that comes over loopback."""


class Echo:
    """Sends back what comes, and remembers how each connection ended."""

    def __init__(self) -> None:
        self.ends: list[str] = []
        self.server: asyncio.Server | None = None

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
            self.ends.append("eof")
            await asyncio.sleep(SOON_S)
            writer.write(b"late")
            await writer.drain()
        except ConnectionError:
            self.ends.append("reset")
        finally:
            writer.close()

    @property
    def port(self) -> int:
        assert self.server is not None
        return int(self.server.sockets[0].getsockname()[1])


@asynccontextmanager
async def standing() -> AsyncIterator[tuple[Line, Echo, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A line to an echo, and one connection that works."""
    echo = Echo()
    echo.server = await asyncio.start_server(echo.take, HOST, 0)
    line = await Line(to_port(echo.port)).start()
    reader, writer = await asyncio.open_connection(HOST, line.port)
    try:
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        yield line, echo, reader, writer
    finally:
        writer.close()
        await line.close()
        echo.server.close()


async def silent(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(SOON_S):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


async def ended(echo: Echo, how: str) -> None:
    async with asyncio.timeout(5):
        while how not in echo.ends:  # noqa: ASYNC110 -- the far end of a socket
            await asyncio.sleep(0.005)


async def test_a_whole_line_carries_everything() -> None:
    async with standing() as (_, _, reader, writer):
        sent = bytes(range(256)) * 4_000
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent


async def test_a_cut_resets_both_ends() -> None:
    async with standing() as (line, echo, reader, _):
        for connection in line.connections:
            connection.reset()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        await ended(echo, "reset")


async def test_a_close_says_eof_to_both_ends() -> None:
    async with standing() as (line, echo, reader, _):
        for connection in line.connections:
            connection.close()
        assert await reader.read(1) == b""
        await ended(echo, "eof")


async def test_a_half_close_leaves_the_other_way_open() -> None:
    async with standing() as (line, echo, reader, writer):
        for connection in line.connections:
            connection.half_close("up")
        await ended(echo, "eof")
        assert await reader.readexactly(4) == b"late"
    async with standing() as (line, echo, reader, writer):
        for connection in line.connections:
            connection.half_close("down")
        assert await reader.read(1) == b""
        writer.write(b"still heard")
        assert await silent(reader) is False, "nothing comes down any more"
        assert echo.ends == []


async def test_a_half_close_of_the_ends_own_is_handed_on() -> None:
    async with standing() as (_, echo, reader, writer):
        writer.write_eof()
        await ended(echo, "eof")
        assert await reader.read() == b"late"


async def test_what_is_held_comes_later_and_whole() -> None:
    async with standing() as (line, _, reader, writer):
        for connection in line.connections:
            connection.hold()
        writer.write(b"held")
        assert await silent(reader)
        for connection in line.connections:
            connection.let_go()
        assert await reader.readexactly(4) == b"held"


async def test_newcomers_can_be_refused_and_held() -> None:
    async with standing() as (line, _, _, _):
        line.refusing = True
        reader, writer = await asyncio.open_connection(HOST, line.port)
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        line.refusing, line.holding = False, True
        reader, writer = await asyncio.open_connection(HOST, line.port)
        writer.write(b"anybody?")
        assert await silent(reader)
        writer.close()


async def test_a_slow_line_and_a_late_one() -> None:
    async with standing() as (line, _, reader, writer):
        clock = asyncio.get_running_loop().time
        (connection,) = line.connections
        connection.bytes_per_s = 20_000.0
        begun = clock()
        writer.write(bytes(2_000))
        await reader.readexactly(2_000)
        assert clock() - begun >= 0.1, "2000 bytes at 20 kB/s, there and back at once"
        connection.bytes_per_s, connection.delay_s = None, 0.1
        begun = clock()
        writer.write(b"late")
        await reader.readexactly(4)
        assert clock() - begun >= 0.2


async def test_a_line_to_nobody_resets() -> None:
    with socket.socket() as free:
        free.bind((HOST, 0))
        line = await Line(to_port(free.getsockname()[1])).start()
        reader, writer = await asyncio.open_connection(HOST, line.port)
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()
        await line.close()


class Health:
    """A node that says who it is, and whether it is ready."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.ready = True
        self.server: asyncio.Server | None = None

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readline()
        if asked.startswith(b"GET /health/ready"):
            status = b"200 OK" if self.ready else b"503 Service Unavailable"
            writer.write(b"HTTP/1.1 " + status + b"\r\n\r\n")
        else:
            writer.write(self.name)
        await writer.drain()
        writer.close()


async def test_the_balancer_takes_turns_among_those_that_are_ready() -> None:
    nodes = [Health(b"a"), Health(b"b")]
    for node in nodes:
        node.server = await asyncio.start_server(node.take, HOST, 0)
    balancer = await Balancer([int(n.server.sockets[0].getsockname()[1]) for n in nodes if n.server]).start()

    async def who() -> bytes:
        reader, writer = await asyncio.open_connection(HOST, balancer.line.port)
        writer.write(b"who?\n")
        try:
            return await reader.read()
        except ConnectionResetError:
            return b"nobody"
        finally:
            writer.close()

    async def seen(count: int) -> None:
        async with asyncio.timeout(5):
            while len(balancer.ready) != count:  # noqa: ASYNC110 -- another task looks every 0.1 s
                await asyncio.sleep(0.01)

    await seen(2)
    assert {await who() for _ in range(2)} == {b"a", b"b"}
    nodes[0].ready = False
    await seen(1)
    assert {await who() for _ in range(4)} == {b"b"}
    nodes[1].ready = False
    await seen(0)
    assert await who() == b"nobody"
    await balancer.close()
    for node in nodes:
        assert node.server is not None
        node.server.close()
