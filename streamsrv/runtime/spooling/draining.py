"""A file that a session left behind, and how it is brought into the store."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from streamsrv.errors import NotFound
from streamsrv.facts import Position
from streamsrv.runtime.spooling import lines
from streamsrv.runtime.spooling.page import Name
from streamsrv.stores.base import Stream, TranscriptStore


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """A file nobody writes to any more."""

    name: Name
    path: Path
    interview: str
    """Empty when nothing of it could be read."""
    size: int
    finals: int
    since_ms: int
    """UTC, of its first entry."""


class Drained(NamedTuple):
    """How it went."""

    stored: int
    """Finals."""
    refused: int
    """Finals of a stream that a newer connection has, or of a deleted interview."""
    sound: bool
    """False when something of the file could not be brought into the store."""


def look(path: Path, name: Name) -> Leftover:
    """What a file holds, as far as it can be read; in a thread.

    Raises:
        OSError: as the system says.
    """
    data = path.read_bytes()
    found = lines.read(data)
    entries = [*found.sound, *found.behind]
    return Leftover(
        name=name,
        path=path,
        interview=entries[0].key.interview if entries else "",
        size=len(data),
        finals=found.finals,
        since_ms=entries[0].at_ms if entries else 0,
    )


async def drain(store: TranscriptStore, found: lines.Read) -> Drained:
    """Bring what was read of a file into the store; may be repeated.

    Raises:
        StoreUnavailable: the store is still away.
    """
    entries = [*found.sound, *lines.finals_of(found.behind)]
    if not entries:
        return Drained(0, 0, found.whole)
    key = entries[0].key
    ours = [stream for stream in await store.streams(key.interview) if stream.id == key.stream]
    if not ours or ours[0].epochs[-1].epoch != key.epoch:
        return await _refused(store, entries, found.whole)
    return await _write(store, ours[0], entries, found.whole)


async def _refused(store: TranscriptStore, entries: Iterable[lines.Entry], whole: bool) -> Drained:
    """A newer epoch has the stream: what the store took before it came counts, the rest is refused by the store."""
    stored = refused = 0
    for entry in entries:
        if entry.final is None:
            continue
        try:
            taken = await store.keep_final(entry.key, entry.final)
        except NotFound:
            taken = False
        except ValueError:  # a newer final stands there: the newer one counts
            taken = False
        stored, refused = stored + taken, refused + (not taken)
    return Drained(stored, refused, whole)


async def _write(store: TranscriptStore, stream: Stream, entries: Iterable[lines.Entry], whole: bool) -> Drained:
    restarts = stream.restarts
    stored = refused = 0
    for entry in entries:
        try:
            restarts = await _progress(store, entry, restarts)
            if entry.final is not None:
                taken = await store.keep_final(entry.key, entry.final)
                stored, refused = stored + taken, refused + (not taken)
            if entry.end is not None:
                await store.end_stream(entry.key, stats=entry.end.stats, now_ms=entry.end.now_ms)
        except NotFound:  # the interview was deleted meanwhile
            refused += entry.final is not None
        except ValueError:  # another final is kept under this key: somebody must look at it
            whole = False
    return Drained(stored, refused, whole)


async def _progress(store: TranscriptStore, entry: lines.Entry, restarts: tuple[Position, ...]) -> tuple[Position, ...]:
    """Anchors, and restart points where they are ahead of the store's: its session may have brought it further."""
    wanted = restarts
    if entry.restarts is not None and len(entry.restarts) == len(restarts):
        wanted = tuple(map(max, restarts, entry.restarts))
    if entry.anchors or wanted != restarts:
        await store.keep_progress(entry.key, wanted, entry.anchors)
    return wanted
