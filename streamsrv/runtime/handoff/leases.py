"""The leases one node holds on the interviews of one sink.

Each renewal raises the number in the lease.  Who wants another's lease watches that number on its own monotonic clock,
and takes the lease when the number stood still for ``lease_s``, if it still does: its holder believed in it no longer.
So no node's UTC matters.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import NamedTuple

from streamsrv.errors import StoreUnavailable
from streamsrv.stores.handoff import HandoffStore, Lease

SPARE = 0.5
"""Share of a lease that must be left when a batch is begun: its deadline lies inside."""
AT_ONCE = 64
"""Leases given back side by side."""
FORGOTTEN = 3
"""Times ``lease_s`` after which a rival's lease that nobody asked for again is watched no more."""


class _Rival(NamedTuple):
    """Another node's lease that is in the way."""

    lease: Lease
    since: float
    """Monotonic seconds at which it was first seen to stand so."""


class Leases:
    """Taken when an interview is first relayed, renewed in time, kept while it lives: a write to the store each.

    Args:
        node: this node's name.
        lease_s: how long one holds.
        now: monotonic seconds.
        utc_ms: the wall clock, from which the numbers begin.
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
        self._number = 0
        self._until: dict[str, float] = {}  # as many as were relayed within ``lease_s``, or since the store is away
        self._rivals: dict[str, _Rival] = {}
        self._leaving: set[str] = set()

    async def hold(self, interview: str) -> bool:
        """Whether this node may relay the interview for another ``SPARE`` of a lease.

        Raises:
            StoreUnavailable: nobody can say.
        """
        now = self._now()
        if self._until.get(interview, now) - now > self._lease_s * SPARE:
            return True
        if interview in self._leaving:
            return False
        self._until.pop(interview, None)  # or it might expire, and be given back, while it is renewed
        rival = self._rivals.get(interview)
        over = rival.lease if rival and now - rival.since >= self._lease_s else None
        try:
            other = await self._store.lease(self._sink, interview, self._next(), over=over)
        except BaseException:
            self._until[interview] = now  # it may be ours, and has expired: it is given back as such
            raise
        if other is None:
            self._until[interview] = now + self._lease_s
            self._rivals.pop(interview, None)
        elif rival is None or rival.lease != other:
            self._rivals[interview] = _Rival(other, self._now())
        return other is None

    def _next(self) -> Lease:
        """One that none of this node's was like."""
        self._number = max(self._number + 1, self._utc_ms() + int(self._lease_s * 1000))
        return Lease(node=self._node, until_ms=self._number)

    async def drop_expired(self) -> None:
        """Give back what was not renewed, so that whoever relays next need not watch it first.

        Raises:
            StoreUnavailable: they do.
        """
        now = self._now()
        self._rivals = {name: one for name, one in self._rivals.items() if now - one.since < FORGOTTEN * self._lease_s}
        await self._give_back(expired_by=now)

    async def give_back(self, interview: str) -> None:
        """Others may have it at once.

        Raises:
            StoreUnavailable: not yet; it counts as expired, and is given back as such.
        """
        if self._until.pop(interview, None) is None:
            return
        self._leaving.add(interview)
        try:
            await self._store.release(self._sink, interview, node=self._node)
        except BaseException:
            self._until[interview] = self._now()
            raise
        finally:
            self._leaving.discard(interview)

    async def give_all_back(self) -> None:
        """At the end; what the store does not take others have to watch."""
        try:
            await self._give_back(expired_by=math.inf)
        except StoreUnavailable:
            pass

    async def _give_back(self, *, expired_by: float) -> None:
        names = tuple(interview for interview, until in self._until.items() if until <= expired_by)
        for at in range(0, len(names), AT_ONCE):
            # Some may have been renewed while others were given back.
            left = [name for name in names[at : at + AT_ONCE] if self._until.get(name, math.inf) <= expired_by]
            some = (self.give_back(interview) for interview in left)
            for said in await asyncio.gather(*some, return_exceptions=True):
                if isinstance(said, StoreUnavailable):
                    raise said
