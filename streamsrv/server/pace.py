"""How long a request body may take: a slow or stalled one must not hold a handler for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import StreamReader

from streamsrv.errors import TooSlow

GRACE_S = 10.0
"""Seconds before the pace counts; a client may think so long before it sends."""
STALL_S = 30.0
"""Longest wait for the next bytes, however fast the others came."""


class Pace:
    """Watches one body.

    Args:
        body: counts what it was given.
        min_bytes_per_s: what it must bring, after ``GRACE_S``.
        within_s: when all of it must be there.
    """

    def __init__(self, body: StreamReader, *, min_bytes_per_s: int, within_s: float) -> None:
        self._body = body
        self._min_bytes_per_s = min_bytes_per_s
        self._within_s = within_s
        self._loop = asyncio.get_running_loop()
        self._begun = self._loop.time()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Around each read.

        Raises:
            TooSlow: the bytes do not come as fast as they must.
        """
        earned = GRACE_S + self._body.total_bytes / self._min_bytes_per_s
        until = min(self._begun + min(earned, self._within_s), self._loop.time() + STALL_S)
        try:
            async with asyncio.timeout_at(until):
                yield
        except TimeoutError:
            raise TooSlow(
                f"the body came more slowly than {self._min_bytes_per_s} bytes a second, "
                f"paused for {STALL_S:g} s, or took longer than {self._within_s:g} s",
                hint="send it over a better connection, in parts, or compressed as FLAC or Opus",
            ) from None
