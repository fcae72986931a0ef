"""What nodes say to each other through Redis: channels, keys and messages.

``PREFIX:nodes``           channel all nodes hear: ``Watching``, ``Deleted``; ``Taken`` when nobody knows from whom.
``PREFIX:to:NODE``         channel of one node: ``Taken``, to whom the stream was taken from.
``PREFIX:live:INTERVIEW``  channel of one interview: ``Live``, what happens in it.  Only here are words that were
                           spoken, in passing: nothing published is kept.
``PREFIX:node:NODE``       key, expiring: this node lives, and Redis takes what is written.
``PREFIX:speaker:STREAM``  key, expiring: which node serves the stream, ``EPOCH NODE``.
``PREFIX:share:HASH``      key, expiring: a sorted set of leases by the Redis clock's time at which each runs out.
``PREFIX:starts:HASH``     key, expiring: a list of the Redis clock's times at which something began, newest first.

Everything read is untrusted: bounded, decoded strictly, and only ever a hint.
"""

from __future__ import annotations

import hashlib
from typing import Final, TypeAlias

import msgspec

from streamsrv.events import ViewerEvent

MAX_BYTES: Final = 1_048_576
"""Largest message read; a larger one is dropped as unreadable."""


class Live(msgspec.Struct, frozen=True, array_like=True):
    """Something that happened in an interview, or (without an event) a sign of life."""

    node: str
    number: int
    """Of all messages of this node; it only grows, so an older message that comes late is known."""
    count: int
    """Goes up by one with each event of this interview that this node tells, but for partials.  When it does not,
    something was lost, or not told because nobody was known to watch."""
    stream: str = ""
    event: ViewerEvent | None = None


class Watching(msgspec.Struct, frozen=True, array_like=True, tag="watching"):
    """The interview is watched on this node from now on."""

    node: str
    interview: str


class Taken(msgspec.Struct, frozen=True, array_like=True, tag="taken"):
    """This node serves this epoch of the stream."""

    node: str
    interview: str
    stream: str
    epoch: int


class Deleted(msgspec.Struct, frozen=True, array_like=True, tag="deleted"):
    node: str
    interview: str


Word: TypeAlias = Watching | Taken | Deleted

encode = msgspec.msgpack.Encoder().encode
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""A text that is not UTF-8 is a ValueError."""
_live = msgspec.msgpack.Decoder(Live).decode
_word = msgspec.msgpack.Decoder(Word).decode


def read_live(data: bytes) -> Live | None:
    """``None`` when it cannot be read: from another version, or not from a node."""
    try:
        return _live(data) if len(data) <= MAX_BYTES else None
    except _UNREADABLE:
        return None


def read_word(data: bytes) -> Word | None:
    try:
        return _word(data) if len(data) <= MAX_BYTES else None
    except _UNREADABLE:
        return None


class Names:
    """Names of channels and keys.

    Args:
        prefix: of all of them.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._live = f"{prefix}:live:"
        self.nodes = f"{prefix}:nodes"

    def live(self, interview: str) -> str:
        return self._live + interview

    def to(self, run: str) -> str:
        return f"{self._prefix}:to:{run}"

    def interview_of(self, channel: str) -> str | None:
        """The interview whose channel this is."""
        return channel.removeprefix(self._live) if channel.startswith(self._live) else None

    def speaker(self, stream: str) -> str:
        return f"{self._prefix}:speaker:{stream}"

    def node(self, run: str) -> str:
        return f"{self._prefix}:node:{run}"

    def share(self, holder: str) -> str:
        """An API key opens doors, so only its hash goes out."""
        return f"{self._prefix}:share:{_hash(holder)}"

    def starts(self, holder: str) -> str:
        """As ``share``."""
        return f"{self._prefix}:starts:{_hash(holder)}"


def _hash(holder: str) -> str:
    return hashlib.sha256(b"streamsrv share " + holder.encode()).hexdigest()[:32]
