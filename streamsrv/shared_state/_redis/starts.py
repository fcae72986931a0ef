"""Beginnings counted over all nodes: one list of times for each holder, by the Redis clock, the newest first.

After FLUSHALL, or a new Redis, it begins at nothing; each node still counts its own.
"""

from __future__ import annotations

from typing import Final

from streamsrv.shared_state._redis.link import Away, Link
from streamsrv.shared_state._redis.wire import Names

WINDOW_MS: Final = 60_000
"""How long a beginning counts, and a list is kept after its newest."""

START: Final = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local window, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local newest = tonumber(redis.call('LINDEX', KEYS[1], 0) or now)
if newest >= now + window then redis.call('DEL', KEYS[1]) elseif newest > now then now = newest end
local oldest = redis.call('LINDEX', KEYS[1], -1)
while oldest and tonumber(oldest) <= now - window do
  redis.call('RPOP', KEYS[1])
  oldest = redis.call('LINDEX', KEYS[1], -1)
end
if redis.call('LLEN', KEYS[1]) >= most then return redis.call('LINDEX', KEYS[1], most - 1) + window - now end
redis.call('LPUSH', KEYS[1], string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], window)
return 0
"""
"""The milliseconds until one more may begin; 0: it was counted.  At most so many times as the largest limit are kept.

A clock that was turned back stands still until it has caught up, or, turned back by more than the window, begins at
nothing: so nobody waits longer than twice the window."""


class Starts:
    """Asks whether one more may begin."""

    def __init__(self, link: Link, names: Names) -> None:
        self._link = link
        self._names = names

    async def start(self, holder: str, most: int) -> float | None:
        """See ``base.SharedState``."""
        if not self._link.well.is_set():
            return None
        try:
            answers = await self._link.run([("EVAL", START, 1, self._names.starts(holder), WINDOW_MS, most)])
        except Away:
            return None
        if not isinstance(answers[0], int):
            self._link.refused(answers)
            return None
        return answers[0] / 1000
