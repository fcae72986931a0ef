"""Leases counted over all nodes: one sorted set for each holder, by the Redis clock's time at which each runs out.

A node that is gone renews nothing, so its leases run out.  After FLUSHALL, or a new Redis, the next renewal brings back
all that are held.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from streamsrv.shared_state._redis.link import BATCH, Away, Command, Link
from streamsrv.shared_state._redis.wire import Names

LEASE_MS: Final = 15_000
"""A lease that is not renewed for so long is over."""

# A clock that was turned back must not keep what runs out in a distant future.
_CLEAN: Final = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + 2 * ARGV[1], '+inf')
"""
RESERVE: Final = f"""{_CLEAN}
if not redis.call('ZSCORE', KEYS[1], ARGV[2]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], 2 * ARGV[1])
return 1
"""
RENEW: Final = f"""{_CLEAN}
for at = 2, #ARGV do redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[at]) end
redis.call('PEXPIRE', KEYS[1], 2 * ARGV[1])
return 1
"""


class Leases:
    """The leases of this node.

    Args:
        run: names this process; begins every lease's name among all nodes.
    """

    def __init__(self, link: Link, names: Names, run: str) -> None:
        self._link = link
        self._names = names
        self._run = run
        self._held: dict[str, set[str]] = {}  # as many as there are sessions here

    async def reserve(self, holder: str, lease: str, most: int) -> bool | None:
        """See ``base.SharedState``."""
        key, member = self._names.share(holder), f"{self._run}:{lease}"
        taken = await self._ask(key, member, most)
        if taken is not False:
            self._held.setdefault(key, set()).add(member)
        return taken

    async def _ask(self, key: str, member: str, most: int) -> bool | None:
        if not self._link.well.is_set():
            return None
        try:
            answers = await self._link.run([("EVAL", RESERVE, 1, key, LEASE_MS, member, most)])
        except Away:
            return None
        if isinstance(answers[0], Exception):
            self._link.refused(answers)
            return None
        return answers[0] == 1

    def release(self, holder: str, lease: str) -> Command:
        """What is to be sent for a lease that is over."""
        key, member = self._names.share(holder), f"{self._run}:{lease}"
        held = self._held.get(key, set())
        held.discard(member)
        if not held:
            self._held.pop(key, None)
        return ("ZREM", key, member)

    def renewal(self) -> Iterator[Command]:
        """What is to be sent now and then, so that none runs out."""
        for key, members in self._held.items():
            ordered = sorted(members)
            for at in range(0, len(ordered), BATCH):
                yield ("EVAL", RENEW, 1, key, LEASE_MS, *ordered[at : at + BATCH])

    def farewell(self) -> Iterator[Command]:
        """What is to be sent when this node goes."""
        for key, members in self._held.items():
            ordered = sorted(members)
            for at in range(0, len(ordered), BATCH):
                yield ("ZREM", key, *ordered[at : at + BATCH])
