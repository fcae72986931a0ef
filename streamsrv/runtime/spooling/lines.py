"""What waits for the store as lines of a file: ``CRC32 NUMBER JSON``, numbered from 0, each complete in itself.

A line that was cut short by a crash, was damaged or is missing is recognised; what comes after it is read all the same.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from streamsrv.events import Final
from streamsrv.facts import Position
from streamsrv.stores.base import Anchor, StreamKey, StreamStats

OVERHEAD_BYTES = 24
"""Bytes of a line beside its JSON, at most."""


class End(msgspec.Struct, frozen=True, kw_only=True):
    """How a stream ended."""

    now_ms: int
    position: Position | None = None
    silence_ms: tuple[int, ...] = ()
    loudest_discarded_dbfs: tuple[float | None, ...] = ()
    """``None``: minus infinity, which JSON cannot say."""

    @classmethod
    def of(cls, stats: StreamStats, now_ms: int) -> End:
        loudest = tuple(level if math.isfinite(level) else None for level in stats.loudest_discarded_dbfs)
        return cls(now_ms=now_ms, position=stats.position, silence_ms=stats.silence_ms, loudest_discarded_dbfs=loudest)

    @property
    def stats(self) -> StreamStats:
        loudest = tuple(-math.inf if level is None else level for level in self.loudest_discarded_dbfs)
        return StreamStats(position=self.position, silence_ms=self.silence_ms, loudest_discarded_dbfs=loudest)


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of a stream that the store does not know yet: a final, restart points or the end."""

    key: StreamKey
    at_ms: int
    """UTC, when it was spooled."""
    anchors: tuple[Anchor, ...] = ()
    """Go into the store before it."""
    final: Final | None = None
    restarts: tuple[Position, ...] | None = None
    end: End | None = None


class Read(NamedTuple):
    """What a file holds.

    Args:
        sound: entries in order up to the first damage.
        behind: entries behind it.
        torn: the last line is incomplete; what it held was never shown.
        damaged: lines that are damaged or missing before the last one.
    """

    sound: list[Entry]
    behind: list[Entry]
    torn: bool
    damaged: int

    @property
    def whole(self) -> bool:
        return not self.torn and not self.damaged

    @property
    def finals(self) -> int:
        return sum(entry.final is not None for entry in (*self.sound, *self.behind))


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Entry)


def encode(entry: Entry) -> bytes:
    """An entry without its place in a file."""
    return _encoder.encode(entry)


def line(number: int, body: bytes) -> bytes:
    """An encoded entry as the ``number``-th line of a file."""
    content = b"%d %s" % (number, body)
    return b"%08x %s\n" % (zlib.crc32(content), content)


def read(data: bytes) -> Read:
    """Everything that can be read of a file's bytes."""
    sound: list[Entry] = []
    behind: list[Entry] = []
    *lines, rest = data.split(b"\n")
    torn, damaged, expected = bool(rest), 0, 0
    for place, (number, entry) in enumerate(map(_parse, lines)):
        if entry is None:
            if place == len(lines) - 1 and not rest:
                torn = True
            else:
                damaged += 1
            expected += 1
            continue
        damaged += abs(number - expected)
        (behind if damaged else sound).append(entry)
        expected = number + 1
    return Read(sound, behind, torn, damaged)


def _parse(text: bytes) -> tuple[int, Entry | None]:
    checksum, _, content = text.partition(b" ")
    number, _, body = content.partition(b" ")
    try:
        if len(checksum) != 8 or int(checksum, 16) != zlib.crc32(content):
            return 0, None
        return int(number), _decoder.decode(body)
    except (ValueError, msgspec.DecodeError):
        return 0, None


def finals_of(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The finals alone: behind damage nothing may be acknowledged and no stream ended."""
    return (msgspec.structs.replace(entry, restarts=None, end=None) for entry in entries if entry.final is not None)
