"""Broken HTTP, slow requests, bodies, and too many of everything (rows 26, 28, 31 to 33, and 42)."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path

import pytest

from streamsrv.server import wire
from streamsrv.settings import ServerSettings
from tests.adversity.arena import Arena, arena, eventually, resident
from tests.support.raw import Raw

KEY = "key-one-1234"
STREAM = "/transcription/stream/raw"


# --- row 26: broken HTTP --------------------------------------------------------------------------------------------

HOST = "Host: localhost\r\n"


@pytest.mark.parametrize(
    "request_text",
    [
        pytest.param(
            f"POST / HTTP/1.1\r\n{HOST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="CL and TE"
        ),
        pytest.param(f"POST / HTTP/1.1\r\n{HOST}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", id="two lengths"),
        pytest.param(f"POST / HTTP/1.1\r\n{HOST}Content-Length: -1\r\n\r\n", id="negative length"),
        pytest.param(f"POST / HTTP/1.1\r\n{HOST}Content-Length: 1_0\r\n\r\n", id="length with underscore"),
        pytest.param(f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: xchunked\r\n\r\n", id="unknown TE"),
        pytest.param(f"GET /health HTTP/1.1\r\n{HOST}{HOST}\r\n", id="two hosts"),
        pytest.param("GET /health HTTP/1.1\nHost: localhost\n\n", id="bare LF"),
        pytest.param(f"GET /health HTTP/1.1\r\n{HOST}X: {'secret' * 1_500}\r\n\r\n", id="header of 9 kB"),
        pytest.param(f"GET /health HTTP/1.1\r\n{HOST}" + "X: 1\r\n" * 200 + "\r\n", id="200 headers"),
        pytest.param(f"GET /{'secret' * 1_500} HTTP/1.1\r\n{HOST}\r\n", id="path of 9 kB"),
        pytest.param(f"GET /health HTTP/1.1\r\n{HOST} folded\r\n\r\n", id="folded header"),
        pytest.param(f"GET /health HTTP/1.1\r\n{HOST}X : 1\r\n\r\n", id="space before colon"),
        pytest.param(f"GET /health HTTP/1.1\r\n{HOST}X: a\x00b\r\n\r\n", id="NUL in header"),
        pytest.param(f"GET /health HTTP/9.9\r\n{HOST}\r\n", id="HTTP 9.9"),
        pytest.param("secretsecret\r\n\r\n", id="no HTTP"),
        pytest.param("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03secret\r\n\r\n", id="TLS"),
    ],
)
async def test_row_26_broken_http_is_answered_400_without_an_echo(ring: Arena, request_text: str) -> None:
    answer = await ring.ask(request_text)
    assert answer.status == 400, answer
    assert answer.code == "bad_http"
    assert b"secret" not in answer.body
    assert "aiohttp" not in answer.headers.get("server", "")


async def test_row_26_ten_thousand_pipelined_requests_are_answered_in_turn(ring: Arena) -> None:
    peer = await ring.connect()
    before = resident()
    sending = asyncio.create_task(peer.send(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10_000))
    for _ in range(100):
        assert (await peer.answer()).status == 200
    await ring.health()
    peer.reset()
    await sending
    assert resident() - before < 16 * 2**20


# --- row 28: slow requests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start", ["", "GET /health HTTP/1.1\r\nHost: local", f"GET /health HTTP/1.1\r\n{HOST}\r\nGET /he"]
)
async def test_row_28_slow_requests_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    """Nothing, half a request line, one header now and then, or half of a second request."""
    monkeypatch.setattr(wire, "KEEPALIVE_S", 0.3)
    async with arena(tmp_path, bystander=False) as ring:
        peer = await ring.connect()
        await peer.send(start.encode())
        dribbling = asyncio.create_task(_dribble(peer))
        await peer.gone()
        dribbling.cancel()


async def _dribble(peer: Raw) -> None:
    while True:
        await asyncio.sleep(0.05)
        await peer.send(b"X")


def test_slow_requests_have_seconds_not_minutes() -> None:
    assert wire.KEEPALIVE_S <= 15


# --- rows 31 to 33: bodies ------------------------------------------------------------------------------------------

MULTIPART = (
    "Content-Type: multipart/form-data; boundary=b\r\n",
    '--b\r\nContent-Disposition: form-data; name="file"; filename="../../etc/passwd\x00"\r\n\r\nx\r\n--b--\r\n',
)


@pytest.mark.parametrize(
    "path", ["/", "/health", "/metrics", "/transcription/other", "/transcription/calm", STREAM, "/nothing"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_rows_31_and_32_where_no_body_is_taken_none_is_read(ring: Arena, method: str, path: str) -> None:
    kind, body = MULTIPART
    request = f"{method} {path} HTTP/1.1\r\n{HOST}{kind}Content-Length: {len(body)}\r\n\r\n{body}"
    answer = await ring.ask(request)
    assert (answer.status, answer.code) == (413, "body_too_big")
    assert answer.headers["connection"] == "close"
    assert b"passwd" not in answer.body
    assert "passwd" not in ring.log_text()


@pytest.mark.parametrize("head", ["Content-Length: 1000000000", "Transfer-Encoding: chunked"])
async def test_rows_31_and_32_a_body_that_never_comes_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    monkeypatch.setattr(wire, "LINGER_S", 0.1)
    async with arena(tmp_path, bystander=False) as ring:
        peer = await ring.connect()
        answer = await peer.ask(f"POST /transcription/other HTTP/1.1\r\n{HOST}{head}\r\n\r\n".encode())
        assert answer.status == 413
        await peer.gone()


async def test_what_follows_a_refused_body_is_no_second_request(ring: Arena) -> None:
    smuggled = f"GET /health HTTP/1.1\r\n{HOST}\r\n"
    peer = await ring.connect()
    answer = await peer.ask(f"POST /health HTTP/1.1\r\n{HOST}Content-Length: 5\r\n\r\nabcde{smuggled}".encode())
    assert answer.status == 413
    assert await peer.gone() == b""


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity", "nonsense"])
@pytest.mark.parametrize("body", [b"garbage", gzip.compress(bytes(1_000_000))], ids=["garbage", "bomb"])
async def test_row_33_compressed_bodies_are_not_taken(ring: Arena, coding: str, body: bytes) -> None:
    coded = f"Content-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n"
    answer = await ring.ask(f"POST /transcription/other HTTP/1.1\r\n{HOST}{coded}\r\n".encode() + body)
    assert (answer.status, answer.code) == (415, "unsupported_media")


# --- row 42: too many -----------------------------------------------------------------------------------------------


async def test_row_42_above_the_cap_of_sessions_newcomers_get_503(tmp_path: Path) -> None:
    server = ServerSettings(max_sessions=4)
    async with arena(tmp_path, server=server) as ring:
        inside = [await ring.join(f"i-{number}") for number in range(3)]
        refused = await asyncio.gather(*(ring.knock(f"{STREAM}-{number}") for number in range(30)))
        assert {(answer.status, answer.code) for answer in refused} == {(503, "full")}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert (await ring.get("/health/ready")).status == 200, "full is not unready"
        for talker in inside:
            await talker.utter()
            assert await talker.finish() == 1000
        assert (await ring.knock()).status == 101, "there is room again"


async def test_row_42_a_burst_of_newcomers_never_exceeds_the_cap(tmp_path: Path) -> None:
    async with arena(tmp_path, server=ServerSettings(max_sessions=10), bystander=False) as ring:
        answers = await asyncio.gather(*(ring.knock(f"{STREAM}-{number}") for number in range(60)))
        assert sorted(answer.status for answer in answers) == [101] * 10 + [503] * 50
        assert ring.server.streams.connected == 10


async def test_row_42_above_the_cap_of_sockets_connections_are_closed_at_once(tmp_path: Path) -> None:
    async with arena(tmp_path, server=ServerSettings(max_connections=10), bystander=False) as ring:
        peers = [await ring.connect() for _ in range(10)]
        assert (await peers[0].ask(f"GET /health HTTP/1.1\r\n{HOST}\r\n".encode())).status == 200
        for _ in range(20):
            extra = await ring.connect()
            await extra.send(b"GET /health HTTP/1.1\r\n")
            await extra.gone()
        ring.hang_up()
        await eventually(lambda: ring.server.connections == 0, lambda: ring.server.connections)


async def test_row_42_each_address_has_its_share_of_sockets(tmp_path: Path) -> None:
    async with arena(tmp_path, server=ServerSettings(max_connections_per_address=3), bystander=False) as ring:
        for _ in range(3):
            await ring.connect()
        extra = await ring.connect()
        await extra.gone()
        elsewhere = await ring.connect(source="127.0.0.2")
        assert (await elsewhere.ask(f"GET /health HTTP/1.1\r\n{HOST}\r\n".encode())).status == 200
        ring.hang_up()
        await eventually(lambda: ring.server.connections == 0, lambda: ring.server.connections)
        assert (await ring.get("/health")).status == 200, "who has left is not counted any more"


async def test_row_42_each_key_has_its_share_of_sessions(tmp_path: Path) -> None:
    server = ServerSettings(api_keys=(KEY, "key-two-5678"), max_sessions_per_key=2)
    async with arena(tmp_path, server=server, bystander=False) as ring:
        bearer = f"Bearer {KEY}"
        for number in range(2):
            assert (await ring.knock(f"{STREAM}-{number}", Authorization=bearer)).status == 101
        answer = await ring.knock(Authorization=bearer)
        assert (answer.status, answer.code) == (503, "full")
        assert (await ring.knock(Authorization="Bearer key-two-5678")).status == 101
        ring.hang_up()
        await eventually(lambda: ring.server.speakers == 0, lambda: ring.server.speakers)
        assert (await ring.knock(Authorization=bearer)).status == 101


async def test_row_42_two_hundred_idle_sessions_are_light(tmp_path: Path) -> None:
    """The cap of sockets is thousands; what one costs is told by a benchmark, this only looks for a disaster."""
    async with arena(tmp_path) as ring:
        before = resident()
        peers = await asyncio.gather(*(ring.raw(f"{STREAM}-{number}") for number in range(200)))
        await ring.health()
        assert resident() - before < 200 * 2**18
        assert len(peers) == ring.server.speakers - 1
