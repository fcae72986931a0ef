"""Each API key's share of the sessions, so that one tenant cannot take them all.

It is counted over all nodes, as far as they can be reached; else on each node by itself, which lets a key hold up to as
many on every node.  Nobody is refused because others cannot be reached, and nobody who is inside is put out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from aiohttp import web

from streamsrv.errors import Full
from streamsrv.runtime.admission import RETRY_AFTER_S, reserve
from streamsrv.shared_state.base import SharedState


class Shares:
    """Counts sessions by key.

    Args:
        most: sessions one key may hold at once; ``None``: no limit of its own.
        shared: the other nodes.
    """

    def __init__(self, most: int | None, shared: SharedState) -> None:
        self._most = most
        self._shared = shared
        self._leases = count()
        self._held: Counter[str] = Counter()  # at most as many names as there are keys: only those come in

    @asynccontextmanager
    async def hold(self, key: str, *, resumes: bool) -> AsyncIterator[None]:
        """Hold one session of this key meanwhile; resumes have a reserve, at least of one.

        Raises:
            Full: the key holds as many as it may.
        """
        if self._most is None:
            yield
            return
        most = self._most + (reserve(self._most) if resumes else 0)
        lease = str(next(self._leases))
        if self._held[key] >= most:
            raise self._full()
        self._held[key] += 1
        try:
            if await self._shared.reserve(key, lease, most) is False:
                raise self._full()
            try:
                yield
            finally:
                self._shared.release(key, lease)
        finally:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]

    def _full(self) -> Full:
        return Full(f"this API key holds {self._most} sessions, the most it may", retry_after_s=RETRY_AFTER_S)


SHARES = web.AppKey("shares", Shares)
