"""Somebody who tries to take a stream over without its token, while it is spoken to."""

from __future__ import annotations

import asyncio
import secrets

import aiohttp

from tests.adversity.runs.ledger import Knocked
from tests.adversity.runs.lines import HOST
from tests.adversity.runs.plan import Knock

WITHIN_S = 5.0


async def knock(planned: Knock, port: int) -> Knocked | None:
    """Try once, at its time; ``None``: nobody answered, as happens when nodes end."""
    await asyncio.sleep(planned.at_s)
    url = f"http://{HOST}:{port}/transcription/stream/{planned.interview}?resume={secrets.token_urlsafe(32)}"
    try:
        async with asyncio.timeout(WITHIN_S), aiohttp.ClientSession() as http, http.ws_connect(url):
            return Knocked(at=planned.at_s, status=101)
    except aiohttp.WSServerHandshakeError as refused:
        return Knocked(at=planned.at_s, status=refused.status)
    except (OSError, TimeoutError, aiohttp.ClientError):
        return None
