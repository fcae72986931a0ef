"""The leases one node holds on the interviews of one sink."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from streamsrv.errors import StoreUnavailable
from streamsrv.stores.handoff import HandoffStore

SPARE = 0.5
"""Share of a lease that must be left when a batch is begun: its deadline lies inside."""
AT_ONCE = 64
"""Leases given back side by side."""


class Leases:
    """Taken when an interview is first relayed, renewed in time, kept while it lives: a write to the store each.

    Args:
        node: this node's name.
        lease_s: how long one holds.
        now: monotonic seconds.
        utc_ms: the wall clock.
    """

    def __init__(
        self,
        store: HandoffStore,
        sink: str,
        *,
        node: str,
        lease_s: float,
        now: Callable[[], float],
        utc_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._sink = sink
        self._node = node
        self._lease_s = lease_s
        self._now = now
        self._utc_ms = utc_ms
        self._until: dict[str, float] = {}  # as many as interviews were relayed within ``lease_s``

    async def hold(self, interview: str) -> bool:
        """Whether this node may relay the interview for another ``SPARE`` of a lease.

        Raises:
            StoreUnavailable: nobody can say.
        """
        now = self._now()
        if self._until.get(interview, now) - now > self._lease_s * SPARE:
            return True
        at_ms = self._utc_ms()
        taken = await self._store.lease(
            self._sink, interview, node=self._node, now_ms=at_ms, until_ms=at_ms + int(self._lease_s * 1000)
        )
        if taken:
            self._until[interview] = now + self._lease_s
        else:
            self._until.pop(interview, None)
        return taken

    def forget_expired(self) -> None:
        now = self._now()
        self._until = {interview: until for interview, until in self._until.items() if until > now}

    async def give_back(self, interview: str) -> None:
        """Others may have it at once.

        Raises:
            StoreUnavailable: they wait until it expires.
        """
        if self._until.pop(interview, None) is not None:
            await self._store.release(self._sink, interview, node=self._node)

    async def give_all_back(self) -> None:
        """At the end; what the store does not take expires."""
        names = tuple(self._until)
        for at in range(0, len(names), AT_ONCE):
            some = (self.give_back(interview) for interview in names[at : at + AT_ONCE])
            if any(isinstance(one, StoreUnavailable) for one in await asyncio.gather(*some, return_exceptions=True)):
                return
