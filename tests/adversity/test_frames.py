"""WebSocket frames that break RFC 6455, lie about their size, or come in floods (rows 1 to 8)."""

from __future__ import annotations

import asyncio
import struct
import zlib
from pathlib import Path

import pytest

from streamsrv.dialects.native import BINARY_BYTES, TEXT_BYTES
from tests.adversity.arena import Arena, arena, resident
from tests.support.engines import CountingEngine
from tests.support.raw import BINARY, CLOSE, PING, TEXT, close_frame, frame, handshake, text
from tests.support.speech import voice

CONTINUATION = 0


async def broken(ring: Arena, *frames: bytes) -> tuple[int | None, str | None]:
    """Send frames to a new session: how it ended, and which error was told before."""
    peer = await ring.raw()
    for data in frames:
        await peer.send(data)
    end = await peer.end()
    return end.code, end.error


# --- rows 1 and 4: the framework gives no hook; these turn red when it mends them -----------------------------------


async def test_row_1_unmasked_frames_are_taken_by_the_framework(ring: Arena) -> None:
    peer = await ring.raw()
    await peer.send(frame(TEXT, b'{"type":"finish"}', mask=False))
    end = await peer.end()
    assert end.code == 1000, (
        "aiohttp refuses unmasked client frames now: good. Expect 1002 here and strike row 1 from docs/limits.md"
    )


@pytest.mark.parametrize("code", [1006, 65_535])
async def test_row_4_forbidden_close_codes_are_taken_by_the_framework(ring: Arena, code: int) -> None:
    peer = await ring.raw()
    await peer.send(close_frame(code))
    end = await peer.end()
    assert end.code == 1000, (
        f"aiohttp refuses close code {code} now: good. Move it to the test below and strike row 4 from docs/limits.md"
    )


# --- rows 2 to 4: refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(BINARY, bytes(4), rsv=1), id="rsv3"),
        pytest.param(frame(BINARY, bytes(4), rsv=2), id="rsv2"),
        pytest.param(frame(BINARY, bytes(4), rsv=4), id="rsv1 without deflate"),
        pytest.param(frame(PING, b"x", rsv=4), id="rsv1 on a ping"),
        pytest.param(frame(3, b"x"), id="reserved data opcode"),
        pytest.param(frame(11, b"x"), id="reserved control opcode"),
        pytest.param(frame(PING, b"x", fin=False), id="fragmented ping"),
        pytest.param(frame(PING, bytes(126)), id="ping of 126 bytes"),
        pytest.param(frame(CONTINUATION, b"x"), id="lone continuation"),
        pytest.param(frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), id="new message inside another"),
        pytest.param(close_frame(1005), id="close 1005"),
        pytest.param(close_frame(999), id="close 999"),
        pytest.param(frame(CLOSE, b"\x03"), id="close of one byte"),
    ],
)
async def test_rows_2_and_4_broken_frames_close_with_1002(ring: Arena, data: bytes) -> None:
    assert await broken(ring, data) == (1002, "protocol_error")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(TEXT, b'{"type":"\xff\xfe"}'), id="text"),
        pytest.param(frame(TEXT, b"\xed\xa0\x80"), id="surrogate"),
        pytest.param(frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"\x28"), id="split text"),
        pytest.param(close_frame(1000, b"\xff"), id="close reason"),
    ],
)
async def test_row_3_what_is_not_utf_8_closes_with_1007(ring: Arena, data: bytes) -> None:
    assert await broken(ring, data) == (1007, "bad_message")


# --- rows 5 to 7: sizes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claimed", [2 * 2**20, 2**63 - 1, 2**64 - 1], ids=["2 MiB", "8 EiB", "16 EiB"])
async def test_row_5_an_announced_giant_is_refused_before_a_byte_of_it(ring: Arena, claimed: int) -> None:
    before = resident()
    assert await broken(ring, frame(BINARY, length=claimed)) == (1009, "message_too_big")
    assert resident() - before < 2**20


async def test_row_6_an_8_mb_message_closes_with_1009(ring: Arena) -> None:
    assert await broken(ring, frame(BINARY, bytes(8_000_000))) == (1009, "message_too_big")


async def test_row_6_fragments_are_counted_together(ring: Arena) -> None:
    part = bytes(1_024)
    fragments = [frame(BINARY, part, fin=False), *(frame(CONTINUATION, part, fin=False) for _ in range(1_499))]
    assert await broken(ring, b"".join(fragments)) == (1009, "message_too_big")


async def test_the_limits_themselves_are_allowed(ring: Arena) -> None:
    peer = await ring.raw()
    await peer.send(frame(BINARY, bytes(BINARY_BYTES)))
    long = '{"type":"keepalive","x":"' + "y" * (TEXT_BYTES - 27) + '"}'
    assert len(long) == TEXT_BYTES
    await peer.send(text(long) + text({"type": "finish"}))
    end = await peer.end()
    assert end.code == 1000
    assert end.events[-1]["audio_ms"] == BINARY_BYTES // 32


@pytest.mark.parametrize("letter", ["y", "ä", "語"])
async def test_text_is_limited_in_bytes(ring: Arena, letter: str) -> None:
    size = TEXT_BYTES // len(letter.encode()) + 1
    assert await broken(ring, text('{"type":"' + letter * size + '"}')) == (1009, "message_too_big")


async def test_row_7_deflate_is_never_negotiated(ring: Arena) -> None:
    peer = await ring.connect()
    offer = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits, permessage-deflate"}
    answer = await peer.ask(handshake("/transcription/stream/raw", ring.port, offer))
    assert answer.status == 101
    assert "sec-websocket-extensions" not in answer.headers
    bomb = zlib.compress(bytes(50_000_000), 9)[2:-4]
    await peer.send(frame(BINARY, bomb, rsv=4))
    end = await peer.end()
    assert (end.code, end.error) == (1002, "protocol_error")


# --- row 8: floods --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tiny",
    [
        pytest.param(frame(BINARY, bytes(2)), id="audio of two bytes"),
        pytest.param(frame(BINARY), id="empty audio"),
        pytest.param(frame(PING), id="pings"),
        pytest.param(frame(10), id="pongs"),
        pytest.param(text({"type": "keepalive"}), id="keepalives"),
    ],
)
async def test_row_8_a_flood_of_tiny_messages_closes_with_4429(ring: Arena, tiny: bytes) -> None:
    peer = await ring.raw()
    for _ in range(300):
        await peer.send(tiny * 1_000)
    end = await peer.end()
    assert (end.code, end.error) == (4429, "flood")
    assert [line["error"] for line in ring.log() if line["event"] == "stream.aborted"] == ["flood"]


async def test_a_flood_while_the_tail_is_still_being_heard_is_cut(tmp_path: Path) -> None:
    """The stream is ending, so there is nothing left to resume: the connection is simply ended."""
    engine = CountingEngine()
    open_gate = asyncio.Event()

    async def gate(final: bool) -> None:
        await open_gate.wait()

    engine.gate = gate
    async with arena(tmp_path, engine=engine) as ring:
        peer = await ring.raw()
        await peer.send(frame(BINARY, voice(1.0)) + text({"type": "finish"}) + frame(PING) * 100_000)
        await peer.gone()
        open_gate.set()
        await ring.ended()
        assert await ring.finals() == ["w0 w1"], "the tail was heard and kept all the same"


async def test_big_audio_is_no_flood_however_fast_it_comes(ring: Arena) -> None:
    peer = await ring.raw()
    await peer.send(frame(BINARY, bytes(640)) * 4_000)
    await peer.send(text({"type": "finish"}))
    end = await peer.end()
    assert end.code == 1000
    assert end.events[-1]["audio_ms"] == 80_000


def test_close_codes_are_two_bytes() -> None:
    """The hand-made frames are what they claim to be."""
    assert close_frame(1002)[-2:] == struct.pack("!H", 1002)
    assert frame(BINARY, bytes(70_000))[1:10] == struct.pack("!BQ", 255, 70_000)
