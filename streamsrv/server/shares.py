"""Each API key's share of the sessions, so that one tenant cannot take them all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from streamsrv.errors import Full
from streamsrv.runtime.admission import RESERVE, RETRY_AFTER_S


class Shares:
    """Counts sessions by key.

    Args:
        most: sessions one key may hold at once; ``None``: no limit of its own.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._held: Counter[str] = Counter()  # at most as many names as there are keys: only those come in

    @contextmanager
    def hold(self, key: str, *, resumes: bool) -> Iterator[None]:
        """Hold one session of this key meanwhile; resumes have a reserve, at least of one.

        Raises:
            Full: the key holds as many as it may.
        """
        if self._most is not None:
            most = self._most + (max(1, int(self._most * RESERVE)) if resumes else 0)
            if self._held[key] >= most:
                raise Full(f"this API key holds {self._most} sessions, the most it may", retry_after_s=RETRY_AFTER_S)
        self._held[key] += 1
        try:
            yield
        finally:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]


SHARES = web.AppKey("shares", Shares)
