"""What the sinks will not take, looked at and tried again: ``GET /outbox/dead``, ``POST /outbox/retry``."""

from __future__ import annotations

import re

import msgspec
from aiohttp import web

from streamsrv.errors import BadRequest, NotFound
from streamsrv.runtime.outbox import Outbox
from streamsrv.server.answers import answer
from streamsrv.server.names import check_interview

OUTBOX = web.AppKey[Outbox | None]("outbox")

MAX_LISTED = 200
"""Dead letters in one page; a larger ``limit`` is refused."""
_SINK = re.compile(r"[a-z_]{1,32}", re.ASCII)


async def dead_letters(request: web.Request) -> web.Response:
    """A page of dead letters, oldest first, without their words; ``next`` leads to the following one.

    ``sinks`` tells how far each sink is behind, all of them whatever is asked; ``null`` on the pages that follow the
    first, for counting reads all that waits.
    """
    query = request.query
    limit = _number("limit", query.get("limit", "100"), most=MAX_LISTED)
    after = _number("after", query.get("after", "0"), most=(1 << 63) - 1)
    store = _outbox(request).store
    page = await store.dead_letters(sink=_sink(request), after=after, limit=limit + 1)
    shown = page[:limit]
    following = shown[-1].place if len(page) > limit else None
    figures = None if after else msgspec.to_builtins(await store.figures())
    return answer({"dead": [msgspec.to_builtins(letter) for letter in shown], "next": following, "sinks": figures})


async def retry(request: web.Request) -> web.Response:
    """Make dead letters pending again: all, or those of a sink, of an interview, or both."""
    interview = request.query.get("interview")
    if interview is not None:
        check_interview(interview, "in the query")
    return answer({"retried": await _outbox(request).retry(sink=_sink(request), interview=interview)})


def _outbox(request: web.Request) -> Outbox:
    outbox = request.app[OUTBOX]
    if outbox is None:
        raise NotFound("this server hands nothing on", hint="name sinks in outbox.sinks")
    return outbox


def _sink(request: web.Request) -> str | None:
    name = request.query.get("sink")
    if name is None or _SINK.fullmatch(name):
        return name
    raise BadRequest("option 'sink' is no name of a sink", hint="kafka, redis_streams or webhook")


def _number(name: str, text: str, *, most: int) -> int:
    if text.isdecimal() and len(text) < 20 and int(text) <= most:
        return int(text)
    raise BadRequest(f"option '{name}' is no whole number from 0 to {most}", hint="leave it out")
