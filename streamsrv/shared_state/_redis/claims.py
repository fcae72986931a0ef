"""Who serves which stream: one expiring key for each, renewed while the stream is served."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from streamsrv.shared_state._redis.link import Command
from streamsrv.shared_state._redis.wire import Names, Taken, encode

CLAIM_MS: Final = 15_000
"""A claim that is not renewed for so long is over."""

CLAIM: Final = """
local held = redis.call('GET', KEYS[1])
local epoch, run
if held then epoch, run = string.match(held, '^(%d+) (.+)$') end
if epoch and tonumber(epoch) > tonumber(ARGV[1]) then return 0 end
if ARGV[4] ~= '' and run ~= ARGV[2] then redis.call('PUBLISH', run and ARGV[5] .. run or ARGV[6], ARGV[4]) end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
return 1
"""
"""The word goes to whoever held the claim, or to all when nobody is known to; a newer epoch's claim stays.  It goes out
first: a Redis that takes no writes passes words on."""
DROP: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class Claims:
    """The claims of this node.

    Args:
        run: names this process.
    """

    def __init__(self, names: Names, run: str) -> None:
        self._names = names
        self._run = run
        self._held: dict[str, int] = {}  # as many as there are sessions here

    def add(self, interview: str, stream: str, epoch: int) -> Command:
        """What is to be sent for a stream that is served from now on; who served an older epoch is told."""
        self._held[stream] = epoch
        word = encode(Taken(self._run, interview, stream, epoch)) if epoch > 1 else b""
        return self._claim(stream, epoch, word)

    def drop(self, stream: str, epoch: int) -> Command | None:
        """What is to be sent for one that is served no longer; ``None``: nothing."""
        if self._held.get(stream) != epoch:
            return None
        del self._held[stream]
        return self._farewell(stream, epoch)

    def renewal(self) -> Iterator[Command]:
        """What is to be sent now and then, so that none expires."""
        for stream, epoch in self._held.items():
            yield self._claim(stream, epoch, b"")

    def farewell(self) -> Iterator[Command]:
        """What is to be sent when this node goes."""
        for stream, epoch in self._held.items():
            yield self._farewell(stream, epoch)

    def _claim(self, stream: str, epoch: int, word: bytes) -> Command:
        told = (word, self._names.to(""), self._names.nodes)
        return ("EVAL", CLAIM, 1, self._names.speaker(stream), epoch, self._run, CLAIM_MS, *told)

    def _farewell(self, stream: str, epoch: int) -> Command:
        return ("EVAL", DROP, 1, self._names.speaker(stream), f"{epoch} {self._run}")
