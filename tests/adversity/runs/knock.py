"""Somebody who tries to take a stream over without its token, while it is spoken to."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable

import aiohttp
import msgspec

from tests.adversity.runs.ledger import Knocked
from tests.adversity.runs.lines import HOST
from tests.adversity.runs.plan import Knock

WITHIN_S = 5.0


async def knock(planned: Knock, port: int, tokens: Callable[[], Iterable[str]]) -> Knocked | None:
    """Try once, at its time; ``None``: nobody answered, as happens when nodes end.

    Args:
        tokens: those of other interviews that are known by then.
    """
    await asyncio.sleep(planned.at_s)
    token = next(iter(tokens()), None) if planned.foreign else None
    answered = await ask(planned.interview, token or secrets.token_urlsafe(32), port, planned.at_s)
    return answered and msgspec.structs.replace(answered, foreign=token is not None)


async def ask(interview: str, token: str, port: int, at: float) -> Knocked | None:
    """Try to resume a stream with this token."""
    url = f"http://{HOST}:{port}/transcription/stream/{interview}?resume={token}"
    try:
        async with asyncio.timeout(WITHIN_S), aiohttp.ClientSession() as http, http.ws_connect(url):
            return Knocked(at=at, status=101)
    except aiohttp.WSServerHandshakeError as refused:
        return Knocked(at=at, status=refused.status)
    except (OSError, TimeoutError, aiohttp.ClientError):
        return None
