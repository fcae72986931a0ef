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
    return check_interview(request.match_info["interview"], "in the path")


def check_interview(name: str, where: str = "in the form") -> str:
    """A name of an interview, as somebody gave it.

    Raises:
        BadRequest: not a name an interview can have.
    """
    if not _INTERVIEW.fullmatch(name) or ".." in name or name in RESERVED:
        raise BadRequest(
            f"the interview id {where} is not acceptable",
            hint="1 to 128 of A-Z a-z 0-9 _ . : -, a letter or digit first, without '..', "
            f"and none of {', '.join(sorted(RESERVED))}",
        )
    return name
