"""Whoever floods a connection that the server ends hears why: what is not read yet is no reason to reset it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import aiohttp
import pytest

from streamsrv.runtime.settings import SessionSettings
from streamsrv.server import peer as peers
from streamsrv.server import socket as sockets
from tests.support.raw import BINARY, End, Json, Raw, frame, text
from tests.support.server import Running, running
from tests.support.watching import until

AUDIO = frame(BINARY, bytes(64_000))
"""Two seconds."""
TIMES = 10
"""One that loses its last word now and then loses one of so many, in ten tests."""

Act: TypeAlias = Callable[[Running, Json], Awaitable[None]]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path, session=SessionSettings(max_stream_s=1_000)) as one:
        yield one


async def flood(peer: Raw, what: bytes = AUDIO) -> None:
    """Send without pause until the connection breaks, or is of no more use."""
    with suppress(ConnectionError):
        while True:
            peer.writer.write(what)
            await peer.writer.drain()
            await asyncio.sleep(0)


async def heard(server: Running, act: Act | None = None, *, what: bytes = AUDIO, last: bytes = b"") -> End:
    """What somebody hears who floods while the server is brought to end it; in a thread, or the two would take turns.

    Args:
        act: done to the server meanwhile, told what the peer was greeted with.
        what: sent again and again.
        last: sent in between, once.
    """
    greeted: asyncio.Queue[Json] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def client() -> End:
        peer = await (await Raw.connect(server.port)).upgrade()
        loop.call_soon_threadsafe(greeted.put_nowait, peer.events[0])
        flooding = asyncio.create_task(flood(peer, what))
        await asyncio.sleep(0.01)
        peer.writer.write(last)
        end = await peer.end()
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        peer.writer.transport.abort()
        await asyncio.sleep(0.01)
        return end

    hearing = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(client())))
    if act is not None:
        ready = await greeted.get()
        await asyncio.sleep(0.01)
        await act(server, ready)
    return await hearing


async def drain(server: Running, ready: Json) -> None:
    await server.streams.drain(5.0)
    server.streams._drain = None


async def dismiss(server: Running, ready: Json) -> None:
    server.streams.dismiss()


async def supersede(server: Running, ready: Json) -> None:
    query = f"resume={ready['resume_token']}"
    async with aiohttp.ClientSession() as http, http.ws_connect(server.stream("raw", query)) as ws:
        await ws.receive_json()


@pytest.mark.parametrize(
    ("last", "code", "error"),
    [
        pytest.param(text("no object"), 1007, "bad_message", id="no object"),
        pytest.param(text({"type": "configure", "sample_rate": 1}), 1008, "bad_request", id="bad option"),
        pytest.param(text("x" * 20_000), 1009, "message_too_big", id="long text"),
        pytest.param(frame(BINARY, bytes(2_000_000)), 1009, "message_too_big", id="giant"),
        pytest.param(frame(BINARY, rsv=1), 1002, "protocol_error", id="broken frame"),
    ],
)
async def test_whoever_floods_hears_what_was_wrong(server: Running, last: bytes, code: int, error: str) -> None:
    for _ in range(TIMES):
        end = await heard(server, last=last)
        assert (end.code, end.error) == (code, error)
    await until(lambda: server.connections == 0)


async def test_whoever_floods_with_tiny_messages_hears_that(server: Running) -> None:
    for _ in range(TIMES):
        end = await heard(server, what=frame(BINARY, bytes(2)) * 500)
        assert (end.code, end.error) == (4429, "flood")
    await until(lambda: server.connections == 0)


@pytest.mark.parametrize(
    ("act", "code", "error"), [(drain, 1012, "draining"), (dismiss, 1012, "draining"), (supersede, 4409, "superseded")]
)
async def test_whoever_floods_hears_that_the_stream_goes_elsewhere(
    server: Running, act: Act, code: int, error: str
) -> None:
    for _ in range(TIMES):
        end = await heard(server, act)
        assert (end.code, end.error) == (code, error)
    await until(lambda: server.connections == 0)


async def test_whoever_floods_hears_that_the_stream_is_too_long(tmp_path: Path) -> None:
    async with running(tmp_path, session=SessionSettings(max_stream_s=10)) as server:
        for _ in range(TIMES):
            end = await heard(server)
            assert (end.code, end.error) == (4413, "too_long")
        await until(lambda: server.connections == 0)


# --- the bounds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("floods", [False, True])
@pytest.mark.parametrize("last", [text("no object"), frame(BINARY, rsv=1)], ids=["wrong", "broken"])
async def test_a_peer_that_never_leaves_is_dropped_in_time(
    server: Running, monkeypatch: pytest.MonkeyPatch, last: bytes, floods: bool
) -> None:
    monkeypatch.setattr(peers, "CLOSE_WITHIN_S" if floods else "QUIET_S", 0.5)
    peer = await (await Raw.connect(server.port)).upgrade()
    await peer.send(last)
    assert (await peer.end()).code is not None
    begun = time.monotonic()
    flooding = asyncio.create_task(flood(peer)) if floods else None
    await peer.gone()
    assert 0.3 < time.monotonic() - begun < 2.0
    if flooding is not None:
        await flooding
    await until(lambda: server.connections == 0)
    peer.close()


@pytest.mark.parametrize(
    ("last", "more"),
    [(text("no object"), AUDIO), (text("no object"), frame(BINARY) * 1_000), (frame(BINARY, rsv=1), AUDIO)],
    ids=["wrong", "wrong and tiny", "broken"],
)
async def test_no_more_is_read_than_there_can_be_on_the_way(
    server: Running, monkeypatch: pytest.MonkeyPatch, last: bytes, more: bytes
) -> None:
    monkeypatch.setattr(peers, "CLOSE_WITHIN_S", 1.0)
    for room in (peers, sockets):
        monkeypatch.setattr(room, "LINGER_BYTES", 200_000)
    peer = await (await Raw.connect(server.port)).upgrade()
    await peer.send(last)
    assert (await peer.end()).code is not None
    sent, begun = 0, time.monotonic()
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(0.7):
            while True:
                peer.writer.write(more)
                await peer.writer.drain()
                sent += len(more)
    assert time.monotonic() - begun > 0.6, "it is still there, so that the peer can read"
    assert sent < 30_000_000, "what the kernels hold, and not what half a second could carry"
    await peer.gone()
    peer.writer.transport.abort()
    await until(lambda: server.connections == 0)


async def test_a_flood_behind_the_last_word_holds_nobody_up(server: Running) -> None:
    floods = [await (await Raw.connect(server.port)).upgrade() for _ in range(3)]
    for peer in floods:
        await peer.send(text("no object"))
        assert (await peer.end()).code == 1007
    flooding = [asyncio.create_task(flood(peer)) for peer in floods]
    other = await (await Raw.connect(server.port)).upgrade()
    begun = time.monotonic()
    await other.send(text({"type": "finish"}))
    assert (await other.end()).code == 1000
    assert time.monotonic() - begun < 1.0
    for peer in floods:
        peer.writer.transport.abort()
    await asyncio.gather(*flooding)
    other.close()
