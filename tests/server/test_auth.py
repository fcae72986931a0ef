"""Who may come in, asked of the door alone."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from streamsrv.errors import Forbidden, StreamsrvError, Unauthorized
from streamsrv.server.auth import Door, key_of

KEYS = ("key-one-1234", "key-two-5678")


def request(host: str | None = "localhost:3004", **headers: str) -> web.Request:
    """Headers with ``_`` for ``-``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return make_mocked_request("GET", "/metrics", headers=named | ({} if host is None else {"Host": host}))


def verdict(door: Door, asked: web.Request) -> type[StreamsrvError] | None:
    try:
        door.check(asked)
    except StreamsrvError as error:
        return type(error)
    return None


@pytest.mark.parametrize("key", KEYS)
def test_any_of_the_keys_opens(key: str) -> None:
    assert verdict(Door(KEYS, ()), request("any.example", Authorization=f"Bearer {key}")) is None
    assert verdict(Door(KEYS, ()), request(Authorization=f"bearer  {key} ")) is None
    assert verdict(Door(KEYS, ()), request(Sec_WebSocket_Protocol=f"streamsrv,bearer.{key}")) is None


@pytest.mark.parametrize("given", ["", "key-one-123", "key-one-12345", "key"])
def test_nothing_else_opens(given: str) -> None:
    assert verdict(Door(KEYS, ()), request(Authorization=f"Bearer {given}")) is Unauthorized
    assert verdict(Door(KEYS, ()), request(Sec_WebSocket_Protocol=f"streamsrv, bearer.{given}")) is Unauthorized


def test_a_header_counts_before_a_subprotocol() -> None:
    both = request(Authorization="Bearer wrong", Sec_WebSocket_Protocol=f"bearer.{KEYS[0]}")
    assert key_of(both) == "wrong"


def test_an_error_says_nothing_of_the_key() -> None:
    with pytest.raises(Unauthorized) as refused:
        Door(KEYS, ()).check(request(Authorization="Bearer CANARY"))
    told = refused.value.message + refused.value.hint
    assert "CANARY" not in told
    assert not any(key in told for key in KEYS)


@pytest.mark.parametrize("host", ["localhost", "LocalHost:1", "127.0.0.1", "127.1.2.3:80", "[::1]:3004"])
def test_without_keys_our_own_names_are_served(host: str) -> None:
    assert verdict(Door((), ()), request(host)) is None


@pytest.mark.parametrize(
    "host", [None, "", ":80", "evil.example", "localhost.evil.example", "[::1", "::1", "10.0.0.1", "0.0.0.0"]
)
def test_without_keys_no_other_name_is_served(host: str | None) -> None:
    assert verdict(Door((), ()), request(host)) is Forbidden


def test_names_of_allowed_origins_are_served() -> None:
    door = Door((), ("https://app.example:8443",))
    assert verdict(door, request("app.example")) is None
    assert verdict(door, request("app.example:9")) is None
    assert verdict(door, request("localhost")) is None
    assert verdict(door, request("evil.example")) is Forbidden
    assert verdict(Door((), ("*",)), request("evil.example")) is None


@pytest.mark.parametrize("origin", ["http://localhost:3004", "https://localhost:3004", "https://app.example"])
def test_our_own_pages_and_allowed_ones_come_in(origin: str) -> None:
    assert verdict(Door((), ("https://app.example/",)), request(Origin=origin)) is None


@pytest.mark.parametrize(
    "origin",
    ["http://localhost", "https://app.example.evil.example", "http://app.example", "null", "", "x", "https://["],
)
def test_pages_of_others_do_not(origin: str) -> None:
    door = Door((), ("https://app.example",))
    assert verdict(door, request(Origin=origin)) is Forbidden
    keyed = Door(KEYS, ("https://app.example",))
    assert verdict(keyed, request(Origin=origin, Authorization=f"Bearer {KEYS[0]}")) is Forbidden, "not even with a key"


def test_a_star_lets_all_pages_in_but_only_with_the_key() -> None:
    door = Door(KEYS, ("*",))
    assert verdict(door, request(Origin="https://evil.example")) is Unauthorized
    assert verdict(door, request(Origin="null", Authorization=f"Bearer {KEYS[1]}")) is None
