"""Who should not come in: foreign origins and names, wrong keys, broken handshakes, ids that are none (rows 20 to 23,
and 27)."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamsrv.settings import ServerSettings
from tests.adversity.arena import Arena, arena, eventually
from tests.support.raw import handshake

KEY = "key-one-1234"
STREAM = "/transcription/stream/raw"


# --- row 20: pages of other origins, and other names for this machine -----------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        "file://",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "http://127.0.0.1:{port}.evil.example",
        "http://evil.example/127.0.0.1:{port}",
        "http://evil127.0.0.1:{port}",
        "http://user@127.0.0.1:{port}",
        "http://127.0.0.1:{port}@evil.example",
        "ws://127.0.0.1:{port}",
        "http://[::1",
        "http://app.example.evil.example",
        "http://evilapp.example",
        "http://app.example",
        "https://app.example:8443",
        "\xff",
    ],
)
async def test_row_20_foreign_origins_are_refused_before_the_upgrade(tmp_path: Path, origin: str) -> None:
    """``https://app.example`` alone is allowed; what only resembles it, or us, is not."""
    server = ServerSettings(allowed_origins=("https://app.example",))
    async with arena(tmp_path, server=server, bystander=False) as ring:
        answer = await ring.knock(Origin=origin.format(port=ring.port))
        assert (answer.status, answer.code) == (403, "forbidden")
        assert await ring.server.store.streams("raw") == ()


async def test_row_20_two_origins_are_none(ring: Arena) -> None:
    own = f"http://127.0.0.1:{ring.port}"
    answer = await ring.knock(Origin=f"{own}\r\nOrigin: {own}")
    assert answer.status == 403


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1:{port}", "https://app.example", "HTTPS://APP.EXAMPLE", "https://app.example/"]
)
async def test_allowed_origins_come_in(tmp_path: Path, origin: str) -> None:
    async with arena(tmp_path, server=ServerSettings(allowed_origins=("https://app.example",))) as ring:
        assert (await ring.knock(Origin=origin.format(port=ring.port))).status == 101


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1", "10.0.0.1"],
)
@pytest.mark.parametrize("origins", [(), ("https://app.example",)])
async def test_a_name_that_points_to_us_is_not_ours(tmp_path: Path, host: str, origins: tuple[str, ...]) -> None:
    """DNS rebinding: the page's own name, of its own origin, resolves to this machine."""
    name = host.format(port="3004")
    async with arena(tmp_path, server=ServerSettings(allowed_origins=origins), bystander=False) as ring:
        for path in ("/transcription/calm", "/metrics", STREAM):
            for headers in ("", f"Origin: http://{name}\r\n"):
                assert (await ring.get(path, host=name, headers=headers)).status in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:3004", "127.0.0.1", "127.8.8.8:3004", "[::1]", "[::1]:3004"])
async def test_our_own_names_are_ours(ring: Arena, host: str) -> None:
    assert (await ring.get("/metrics", host=host)).status == 200


# --- rows 21 and 27: keys, and what does not count as one -----------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        "",
        "Authorization: Bearer \r\n",
        "Authorization: Bearer key-one-123\r\n",
        "Authorization: Bearer key-one-12345\r\n",
        "Authorization: Bearer KEY-ONE-1234\r\n",
        "Authorization: Basic key-one-1234\r\n",
        "Authorization: key-one-1234\r\n",
        "Authorization: Bearer \xe9\xff\r\n",
        "Cookie: key=key-one-1234\r\n",
        "X-Api-Key: key-one-1234\r\n",
        "Sec-WebSocket-Protocol: key-one-1234\r\n",
        "Sec-WebSocket-Protocol: streamsrv, bearer.wrong\r\n",
        "X-Forwarded-For: 127.0.0.1\r\n",
        "Forwarded: for=127.0.0.1;host=localhost\r\n",
        "X-Forwarded-Host: localhost\r\n",
        "Origin: http://127.0.0.1:{port}\r\n",
    ],
)
async def test_without_the_key_nothing_opens(tmp_path: Path, headers: str) -> None:
    async with arena(tmp_path, server=ServerSettings(api_keys=(KEY, "key-two-5678")), bystander=False) as ring:
        given = headers.replace("{port}", str(ring.port))
        for path in ("/metrics", "/transcription/calm", f"{STREAM}?api_key={KEY}&token={KEY}", "/nothing"):
            answer = await ring.get(path, headers=given)
            assert (answer.status, answer.code) == (401, "unauthorized"), path
            assert answer.headers["www-authenticate"] == "Bearer"
        assert (await ring.get("/health", headers=given)).status == 200


@pytest.mark.parametrize("key", [KEY, "key-two-5678"])
async def test_each_key_opens_by_header_and_by_subprotocol(tmp_path: Path, key: str) -> None:
    async with arena(tmp_path, server=ServerSettings(api_keys=(KEY, "key-two-5678")), bystander=False) as ring:
        assert (
            await ring.get("/metrics", headers=f"Authorization: Bearer {key}\r\n", host="any.example")
        ).status == 200
        answer = await ring.knock(Sec_WebSocket_Protocol=f"streamsrv, bearer.{key}")
        assert answer.status == 101
        assert answer.headers["sec-websocket-protocol"] == "streamsrv", "never the key"


async def test_row_27_forwarded_headers_make_nobody_local(ring: Arena) -> None:
    forged = (
        "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: localhost\r\n"
        "X-Real-IP: 127.0.0.1\r\nForwarded: host=localhost\r\n"
    )
    assert (await ring.get("/metrics", host="evil.example", headers=forged)).status == 403


async def test_row_27_forwarded_headers_dodge_no_cap(tmp_path: Path) -> None:
    """Addresses are the sockets'; a peer that claims another one is counted as itself."""
    server = ServerSettings(max_connections_per_address=6)
    async with arena(tmp_path, server=server, bystander=False) as ring:
        for number in range(6):
            await ring.knock(f"{STREAM}-{number}", X_Forwarded_For=f"10.0.0.{number}")
        extra = await ring.connect()
        await extra.send(handshake(STREAM, ring.port, {"X-Forwarded-For": "10.9.9.9"}))
        await extra.gone()
        ring.hang_up()
        await eventually(lambda: ring.server.speakers == 0, lambda: ring.server.speakers)


# --- row 22: handshakes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["8", "7", "0", "14", "", "x", "13, 8", None])
async def test_row_22_only_version_13_is_spoken(ring: Arena, version: str | None) -> None:
    answer = await ring.knock(Sec_WebSocket_Version=version)
    assert (answer.status, answer.code) == (426, "upgrade_required")
    assert answer.headers["sec-websocket-version"] == "13"


@pytest.mark.parametrize("upgrade", [None, "h2c", "tls/1.0", "websockets"])
async def test_row_22_other_upgrades_are_none(ring: Arena, upgrade: str | None) -> None:
    answer = await ring.knock(Upgrade=upgrade)
    assert (answer.status, answer.code) == (426, "upgrade_required")
    assert answer.headers["upgrade"] == "websocket"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_WebSocket_Key": None},
        {"Sec_WebSocket_Key": ""},
        {"Sec_WebSocket_Key": "short"},
        {"Sec_WebSocket_Key": "A" * 400},
        {"Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAA\xff=="},
        {"Connection": None},
        {"Connection": "keep-alive"},
    ],
)
async def test_row_22_a_broken_handshake_is_a_bad_request(ring: Arena, headers: dict[str, str | None]) -> None:
    answer = await ring.knock(STREAM, method="GET", **headers)
    assert (answer.status, answer.code) == (400, "bad_request")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_row_22_only_get_upgrades(ring: Arena, method: str) -> None:
    answer = await ring.knock(method=method)
    assert answer.status == 405
    assert "GET" in answer.headers["allow"]


async def test_row_22_head_does_not_upgrade(ring: Arena) -> None:
    assert (await ring.knock(method="HEAD")).status == 400


async def test_row_22_h2c_elsewhere_is_plain_http(ring: Arena) -> None:
    assert (await ring.get("/health", headers="Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n")).status == 200
    preface = await ring.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert preface.status in (400, 404, 405)


async def test_row_22_http_1_0_does_not_upgrade(ring: Arena) -> None:
    request = handshake(STREAM, ring.port).replace(b"HTTP/1.1", b"HTTP/1.0")
    assert (await ring.ask(request)).status == 400


# --- row 23: interview ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e",
        "..",
        "a..b",
        "%00",
        "a%00",
        "%0d%0aSet-Cookie:%20x",
        "a%0a",
        "%20",
        "a%20b",
        "%2f",
        "a%2fb",
        "a%5cb",
        ".a",
        "-a",
        "_a",
        ":a",
        "a" * 129,
        "a" * 7_000,
        "%d0%b0bc",
        "%ef%bd%81",
        "%d9%a1",
        "caf%c3%a9",
        "%c0%af",
        "%ff",
        "%ed%a0%80",
        "$ne",
        "%24ne",
        "%7b%22%24gt%22:%22%22%7d",
        "a;b",
        "a'b",
        "a%22b",
        "a%25b",
        "a+b",
        "a@b",
        "a~b",
        "a*b",
        "upload",
        "jobs",
        "stream",
        "tokens",
        "%75pload",
    ],
)
async def test_row_23_ids_that_are_none_are_refused(ring: Arena, name: str) -> None:
    for path in (f"/transcription/stream/{name}", f"/transcription/{name}"):
        answer = await ring.knock(path)
        assert answer.status == 400 or (name in ("..", "%2e%2e", "stream") and answer.status == 404), path
        assert name not in answer.body.decode() or name in ("upload", "jobs", "stream", "tokens", "..")
    assert ring.server.speakers == 1, "the bystander's"


@pytest.mark.parametrize(
    "name", ["a", "0", "test-interview", "A.b_c:d-e", "a.b.c", "9" * 128, "uploads", "Jobs", "%61bc"]
)
async def test_row_23_ids_that_are_ids_are_taken(ring: Arena, name: str) -> None:
    assert (await ring.knock(f"/transcription/stream/{name}")).status == 101
    assert (await ring.get(f"/transcription/{name}")).status == 200


@pytest.mark.parametrize(
    "path", ["/transcription/stream/", "/transcription/stream/a/b", "/transcription/stream//a", "//", "/%2e%2e/"]
)
async def test_paths_around_the_id_are_nothing(ring: Arena, path: str) -> None:
    assert (await ring.knock(path)).status in (400, 404)
