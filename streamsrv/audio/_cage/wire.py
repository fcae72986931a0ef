"""What server and decoder process say to each other: frames of a kind, a lane and a body over one socket pair.

A *lane* is one recording.  Nobody sends what the other side has not made room for: audio costs the child a credit,
input takes part of a window, so neither side ever buffers more than the bounds below.

The child's half of this conversation is not trusted: the server kills a child that breaks a bound.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

BODY_BYTES: Final = 65_536
"""Longest body; a longer one is a broken peer: the child leaves, the server kills the child."""
CREDITS: Final = 8
"""Pieces of audio a lane may send before any of them is read; then its decoder waits."""
WINDOW_BYTES: Final = 262_144
"""Bytes of a live recording that may wait for its decoder; then ``feed`` waits."""
HEADER: Final = struct.Struct("!BII")
COUNT: Final = struct.Struct("!I")


class Say(IntEnum):
    """Kinds of frames."""

    # server to child
    OPEN = 1
    """JSON: what the lane may take.  A file's descriptor travels with it."""
    DATA = 2
    """The next bytes of a live recording."""
    END = 3
    """No more of them."""
    MORE = 4
    """A count: so many pieces of audio were read."""
    CLOSE = 5
    """Nobody wants the rest."""
    # child to server
    HELLO = 16
    """JSON: the walls that stand.  Lane 0."""
    LAYOUT = 17
    """JSON: what the audio will be."""
    AUDIO = 18
    """Interleaved s16le, whole frames."""
    TOOK = 19
    """A count: so many bytes of input were read."""
    WARN = 20
    """A word of ``reasons.WARNINGS``."""
    DONE = 21
    """All of it was decoded."""
    FAILED = 22
    """JSON: a word of ``reasons.REASONS`` and a number or a short name."""
    FREE = 23
    """Nothing of the lane is left; always the lane's last frame."""


class Frame:
    """One frame, as read."""

    __slots__ = ("body", "kind", "lane")

    def __init__(self, kind: Say, lane: int, body: bytes) -> None:
        self.kind = kind
        self.lane = lane
        self.body = body


def pack(kind: Say, lane: int, body: bytes = b"") -> bytes:
    """A frame's bytes."""
    return HEADER.pack(kind, lane, len(body)) + body


def count(number: int) -> bytes:
    """Body of ``MORE`` and ``TOOK``."""
    return COUNT.pack(number)


class Parser:
    """Bytes in any split -> frames."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Frames that ``data`` completes.

        Raises:
            ValueError: the peer speaks something else.
        """
        self._held += data
        frames: list[Frame] = []
        at = 0
        while len(self._held) - at >= HEADER.size:
            kind, lane, size = HEADER.unpack_from(self._held, at)
            if size > BODY_BYTES:
                raise ValueError(f"a body of {size} bytes is over the limit of {BODY_BYTES}")
            if len(self._held) - at - HEADER.size < size:
                break
            at += HEADER.size
            frames.append(Frame(Say(kind), lane, bytes(self._held[at : at + size])))
            at += size
        del self._held[:at]
        return frames


def number(body: bytes) -> int:
    """What ``count`` packed.

    Raises:
        ValueError: it is no count.
    """
    if len(body) != COUNT.size:
        raise ValueError("a count has four bytes")
    value: int = COUNT.unpack(body)[0]
    return value
