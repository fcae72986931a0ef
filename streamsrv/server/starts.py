"""How many streams and uploads each API key may begin in a minute, so that one tenant's restarts harm nobody else.

A window slides: in no minute begin more.  It is counted over all nodes, as far as they can be reached, and always on
each node by itself; so while the others are away, a key may begin as many on every node.  What resumes or only watches
begins nothing; what is refused does not count, what fails later does.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from streamsrv.errors import RateLimited
from streamsrv.shared_state.base import SharedState

WINDOW_S: Final = 60.0
"""How long a beginning counts."""


class Starts:
    """Counts beginnings by key.

    Args:
        most: beginnings of one key in any minute; ``None``: no limit.
        shared: the other nodes.
        registry: takes the numbers.
        clock: monotonic seconds.
    """

    def __init__(
        self, most: int | None, shared: SharedState, registry: CollectorRegistry, clock: Callable[[], float]
    ) -> None:
        self._most = most
        self._shared = shared
        self._clock = clock
        self._windows: dict[str, _Window] = {}  # as many as there are keys: only those come in
        counted = Counter(
            "streamsrv_key_starts",
            "Streams and uploads begun under server.max_starts_per_minute_per_key, by who counted: all nodes or one.",
            ["counted_by"],
            registry=registry,
        )
        self._by_all, self._by_one = counted.labels("all"), counted.labels("one")

    def foresee(self, key: str) -> None:
        """What ``count`` would refuse as far as this node knows, without counting anything.

        Raises:
            RateLimited: the key began as many as it may.
        """
        window = self._windows.get(key)
        if self._most is not None and window is not None:
            self._refuse(window.wait_s(self._clock()))

    async def count(self, key: str) -> None:
        """One more begins.

        Raises:
            RateLimited: the key began as many as it may.
        """
        if self._most is None:
            return
        window = self._windows.setdefault(key, _Window(self._most))
        now = self._clock()
        self._refuse(window.wait_s(now))
        window.add(now)
        wait_s = await self._shared.start(key, self._most)
        if wait_s:
            window.shut(now, until=self._clock() + wait_s)
            self._refuse(wait_s)
        (self._by_one if wait_s is None else self._by_all).inc()

    def _refuse(self, wait_s: float) -> None:
        if wait_s > 0:
            raise RateLimited(
                f"this API key began {self._most} streams and uploads within a minute, the most it may",
                retry_after_s=math.ceil(wait_s),
            )


class _Window:
    """The beginnings of one key on this node.

    Args:
        most: in any ``WINDOW_S``; so many times are kept.
    """

    def __init__(self, most: int) -> None:
        self._times: deque[float] = deque(maxlen=most)
        self._shut_until = 0.0

    def wait_s(self, now: float) -> float:
        """Seconds until one more may begin; 0 or less: now."""
        full = len(self._times) == self._times.maxlen
        return max(self._shut_until, self._times[0] + WINDOW_S if full else 0.0) - now

    def add(self, now: float) -> None:
        self._times.append(now)

    def shut(self, began: float, *, until: float) -> None:
        """Take back a beginning that the others did not allow; they need not be asked before then."""
        if began in self._times:
            self._times.remove(began)
        self._shut_until = max(self._shut_until, until)


STARTS = web.AppKey("starts", Starts)
