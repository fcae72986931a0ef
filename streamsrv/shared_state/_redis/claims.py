"""Who serves which stream: one expiring key for each, renewed while the stream is served."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from streamsrv.shared_state._redis.link import Away, Command, Link
from streamsrv.shared_state._redis.wire import Names

CLAIM_MS: Final = 15_000
"""A claim that is not renewed for so long is over."""

CLAIM: Final = """
local held = redis.call('GET', KEYS[1])
local epoch = held and tonumber(string.match(held, '^(%d+) '))
if epoch and epoch > tonumber(string.match(ARGV[1], '^(%d+) ')) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
"""A newer epoch's claim stays, whoever renews an older one."""
DROP: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class Claims:
    """The claims of this node.

    Args:
        node: what it is called.
    """

    def __init__(self, link: Link, names: Names, node: str) -> None:
        self._link = link
        self._names = names
        self._node = node
        self._held: dict[str, int] = {}  # as many as there are sessions here

    def add(self, stream: str, epoch: int) -> Command:
        """What is to be sent for a stream that is served from now on."""
        self._held[stream] = epoch
        return self._claim(stream, epoch)

    def drop(self, stream: str, epoch: int) -> Command | None:
        """What is to be sent for one that is served no longer; ``None``: nothing."""
        if self._held.get(stream) != epoch:
            return None
        del self._held[stream]
        return ("EVAL", DROP, 1, self._names.speaker(stream), self._value(epoch))

    def renewal(self) -> Iterator[Command]:
        """What is to be sent now and then, so that none expires."""
        for stream, epoch in self._held.items():
            yield self._claim(stream, epoch)

    def farewell(self) -> Iterator[Command]:
        for stream, epoch in self._held.items():
            yield ("EVAL", DROP, 1, self._names.speaker(stream), self._value(epoch))

    async def spoken(self, streams: Collection[str]) -> frozenset[str] | None:
        """See ``base.SharedState``."""
        if not self._link.well.is_set() or self._link.refuses:
            return None  # a Redis that takes no claims knows of none
        asked = list(streams)
        try:
            answers = await self._link.run([("EXISTS", self._names.speaker(stream)) for stream in asked])
        except Away:
            return None
        if any(isinstance(answer, Exception) for answer in answers):
            return None
        return frozenset(stream for stream, answer in zip(asked, answers, strict=True) if answer)

    def _claim(self, stream: str, epoch: int) -> Command:
        return ("EVAL", CLAIM, 1, self._names.speaker(stream), self._value(epoch), CLAIM_MS)

    def _value(self, epoch: int) -> str:
        return f"{epoch} {self._node}"
