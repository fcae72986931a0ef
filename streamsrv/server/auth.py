"""The one check at the door: who may come in.

With API keys, each request needs one. Without, only this machine is served, and only under its own names and those of
allowed origins: a web page that had its own name point to this machine (DNS rebinding) would otherwise pass for a page
of ours. Pages of other origins are refused either way, unless they are allowed by name.
"""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from streamsrv.errors import Forbidden, Unauthorized

SUBPROTOCOL = "streamsrv"
"""Answered to a browser, which must offer it beside ``bearer.KEY``."""
_BEARER = "bearer."


class Door:
    """Decides about requests.

    Args:
        api_keys: any of them opens; none: loopback only.
        allowed_origins: web origins whose pages may connect besides our own; ``*`` lets in all.
    """

    def __init__(self, api_keys: tuple[str, ...], allowed_origins: tuple[str, ...]) -> None:
        self._keys = tuple(key.encode() for key in api_keys)
        self._origins = frozenset(origin.rstrip("/").lower() for origin in allowed_origins)
        self._names = frozenset(_host_name(origin.partition("://")[2]) for origin in self._origins)

    def check(self, request: web.Request) -> None:
        """Let the request in, or raise.

        Raises:
            Forbidden: a web page of another origin, or a name that is not this machine's.
            Unauthorized: no key, or a wrong one.
        """
        self._check_origin(request)
        if not self._keys:
            self._check_local(request)
        elif not self._opens(key_of(request)):
            raise Unauthorized("this server needs an API key, and this request has none that fits")

    def holder(self, request: web.Request) -> str:
        """Whose limits count for a request that was let in: its key's, or, without keys, those of all."""
        return key_of(request) if self._keys else ""

    def _opens(self, offered: str) -> bool:
        """In the same time whichever key fits, or none."""
        given = offered.encode("utf-8", "surrogateescape")
        return sum([hmac.compare_digest(given, key) for key in self._keys]) > 0

    def _check_origin(self, request: web.Request) -> None:
        origins = request.headers.getall(hdrs.ORIGIN, [])
        if not origins or "*" in self._origins:
            return
        origin = origins[0].rstrip("/").lower()
        if len(origins) == 1 and (origin in self._origins or _same(origin, request)):
            return
        raise Forbidden(
            "pages of this web origin may not connect", hint="add the origin to server.allowed_origins, exactly"
        )

    def _check_local(self, request: web.Request) -> None:
        name = _host_name(request.headers.get(hdrs.HOST, ""))
        if "*" not in self._origins and name not in self._names and not _is_loopback(name):
            raise Forbidden(
                "without API keys this server answers only to 'localhost' and loopback addresses",
                hint="connect to http://localhost, or set server.api_keys",
            )


def key_of(request: web.Request) -> str:
    """The API key a request offers, by header or by WebSocket subprotocol; empty when none."""
    scheme, _, value = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    for offered in request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, "").split(","):
        if offered.strip().startswith(_BEARER):
            return offered.strip().removeprefix(_BEARER)
    return ""


def _same(origin: str, request: web.Request) -> bool:
    try:
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and parts.netloc == request.headers.get(hdrs.HOST, "").lower() != ""
    except ValueError:
        return False


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
