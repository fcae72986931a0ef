"""The web page at ``/``: speak into the microphone or play a file, read the words.

A fixed list of files beside this module, read once; nothing else can be asked for.  The page needs no key (it holds
nothing worth one): the streams and transcripts it asks for do.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath

from aiohttp import web

INDEX = "index.html"
NAMES = frozenset(
    {
        "page.css",
        "page.js",
        "backlog.js",
        "captions.js",
        "link.js",
        "sources.js",
        "transcripts.js",
        "worklet.js",
        "icon.svg",
    }
)
"""What ``/page/{name}`` serves."""
PATHS = frozenset({"/", *(f"/page/{name}" for name in NAMES)})

_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS = {
    # 'self' covers ws:// and wss:// of the same host; a string can never become markup or code (trusted types).
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@cache
def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def _response(name: str) -> web.Response:
    kind = _KINDS[PurePosixPath(name).suffix]
    return web.Response(text=_text(name), content_type=kind, charset="utf-8", headers=_HEADERS)


async def page(request: web.Request) -> web.Response:
    """The page itself."""
    return _response(INDEX)


async def part(request: web.Request) -> web.Response:
    """One of the page's own files."""
    name = request.match_info["name"]
    if name not in NAMES:
        raise web.HTTPNotFound
    return _response(name)
