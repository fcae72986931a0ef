"""Peers that are gone before we have answered: their sockets fail under our hands, and that is no fault of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from streamsrv.stores.base import Stream
from tests.adversity.arena import Arena, arena, eventually
from tests.support.memory import MemoryStore
from tests.support.raw import BINARY, PING, frame, handshake

TIMES = 40


class HangingUp(MemoryStore):
    """Whoever is asked about has gone when the store has answered."""

    hang_up: Callable[[], None]

    async def streams(self, interview: str) -> tuple[Stream, ...]:
        found = await super().streams(interview)
        self.hang_up()
        return found

    async def begin_stream(self, **asked: object) -> Stream:
        begun = await super().begin_stream(**asked)  # type: ignore[arg-type]
        self.hang_up()
        return begun


@pytest.mark.parametrize("query", ["", "?role=viewer"])
async def test_gone_in_the_handshake(tmp_path: Path, query: str) -> None:
    store = HangingUp()
    async with arena(tmp_path, store=store, bystander=False) as ring:

        def hang_up() -> None:
            server = ring.server.runner.server
            assert server is not None
            for connection in server.connections:
                if connection.transport is not None:
                    connection.transport.abort()

        store.hang_up = hang_up
        peer = await ring.connect()
        peer.writer.write(handshake(f"/transcription/stream/raw{query}", ring.port))
        assert await peer.gone() == b""


@pytest.mark.parametrize("query", ["", "?role=viewer"])
async def test_gone_before_the_pong(ring: Arena, query: str) -> None:
    before = ring.server.connections
    for number in range(TIMES):
        peer = await ring.raw(f"/transcription/stream/raw-{number}{query}")
        peer.writer.write(frame(PING, b"") * 10 + (frame(BINARY, bytes(640)) if not query else b""))
        await asyncio.sleep(0.0005 * (number % 8))
        peer.reset()
        await eventually(lambda: ring.server.connections <= before, lambda: "the connection is still there")
