"""Names in paths."""

from __future__ import annotations

import re

from aiohttp import web

from streamsrv.errors import BadRequest

RESERVED = frozenset({"upload", "jobs", "stream", "tokens"})
_INTERVIEW = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}", re.ASCII)


def interview_of(request: web.Request) -> str:
    """The interview a path names.

    Raises:
        BadRequest: not a name an interview can have.
    """
    name = request.match_info["interview"]
    if not _INTERVIEW.fullmatch(name) or ".." in name or name in RESERVED:
        raise BadRequest(
            "the interview id in the path is not acceptable",
            hint="1 to 128 of A-Z a-z 0-9 _ . : -, a letter or digit first, without '..', "
            f"and none of {', '.join(sorted(RESERVED))}",
        )
    return name
