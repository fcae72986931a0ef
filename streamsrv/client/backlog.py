"""Audio that was given and is not acknowledged: kept for the connection to come.

A *place* counts bytes since the stream began.  Audio lies in blocks of fixed size, so reading anywhere costs the same
and nothing is ever moved.
"""

from __future__ import annotations

from collections import deque

from streamsrv.commands import Encoding

BLOCK_BYTES = 65_536
"""Memory is taken and given back in these steps; one block more than the capacity may be held."""

SAMPLE_BYTES: dict[Encoding, int] = {"pcm_s16le": 2, "pcm_s24le": 3, "pcm_f32le": 4, "mulaw": 1, "alaw": 1}
_SILENCE: dict[Encoding, int] = {"mulaw": 0xFF, "alaw": 0xD5}


class Backlog:
    """The bytes between ``start`` and ``stop``.

    Args:
        capacity: bytes kept at most, at least 1.  When it is full ``append`` takes nothing: the giver must wait.
        encoding: decides which byte stands for silence.

    One stream, one owner; not for use by several threads.
    """

    __slots__ = ("_base", "_blocks", "_silence", "capacity", "start", "stop")

    def __init__(self, capacity: int, encoding: Encoding = "pcm_s16le") -> None:
        self.capacity = capacity
        self.start = 0
        """Place of the oldest byte kept."""
        self.stop = 0
        """Place behind the newest."""
        self._blocks: deque[bytearray] = deque()
        self._base = 0  # place of the first block's first byte
        self._silence = bytes([_SILENCE.get(encoding, 0)])

    @property
    def room(self) -> int:
        """Bytes that can be taken now."""
        return self.capacity - (self.stop - self.start)

    def append(self, data: memoryview) -> int:
        """Take as much of ``data`` (bytes) as there is room for; returns how many bytes were taken."""
        taken = min(len(data), self.room)
        done = 0
        while done < taken:
            if not self._blocks or len(self._blocks[-1]) == BLOCK_BYTES:
                self._blocks.append(bytearray())
            block = self._blocks[-1]
            piece = data[done : min(taken, done + BLOCK_BYTES - len(block))]
            block += piece
            done += len(piece)
        self.stop += taken
        return taken

    def read(self, place: int, most: int) -> bytes:
        """Up to ``most`` bytes from ``place``; fewer at the end of a block, none at ``stop``.

        What lies before ``start`` reads as silence: the server said that it does not need it, only its length.
        """
        if place < self.start:
            return self._silence * min(most, self.start - place)
        if place >= self.stop:
            return b""
        index, offset = divmod(place - self._base, BLOCK_BYTES)
        return bytes(self._blocks[index][offset : offset + most])

    def forget(self, place: int) -> int:
        """Let go of everything before ``place``; returns how many bytes that freed."""
        freed = min(place, self.stop) - self.start
        if freed <= 0:
            return 0
        self.start += freed
        while self._blocks and self._base + BLOCK_BYTES <= self.start:
            self._blocks.popleft()
            self._base += BLOCK_BYTES
        return freed
