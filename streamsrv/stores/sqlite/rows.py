"""Rows to structs and back."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import msgspec

from streamsrv.commands import Options
from streamsrv.events import Final
from streamsrv.facts import Position
from streamsrv.stores.base import Anchor, EpochStart, Interview, Stream, StreamStatus

Row: TypeAlias = tuple[object, ...]

STREAM_COLUMNS = """s._id, s.interview, s.ord, s.status, s.options, s.engine, s.epochs,
    coalesce(p.restarts, s.restarts), s.startedAt, s.endedAt, s.position, s.silenceMs, s.loudestDiscardedDbfs"""
STREAM_TABLES = "streams AS s LEFT JOIN progress AS p ON p.stream = s._id"

_encoder = msgspec.json.Encoder()
_final = msgspec.json.Decoder(Final)
_options = msgspec.json.Decoder(Options)
_epochs = msgspec.json.Decoder(tuple[EpochStart, ...])
_integers = msgspec.json.Decoder(tuple[int, ...])
_levels = msgspec.json.Decoder(tuple[float | None, ...])


class StreamRow(msgspec.Struct, frozen=True, array_like=True):
    """``STREAM_COLUMNS`` as they come, in their order."""

    id: str
    interview: str
    order: int
    status: StreamStatus
    options: str
    engine: str
    epochs: str
    restarts: str
    started_ms: int
    ended_ms: int | None
    position: int | None
    silence_ms: str
    loudest_discarded_dbfs: str


def to_json(value: object) -> str:
    """JSON text; an infinite or undefined number becomes ``null``."""
    return _encoder.encode(value).decode()


def final_from(document: str) -> Final:
    return _final.decode(document)


def final_to(final: Final) -> str:
    """The document of a final.

    Raises:
        ValueError: a confidence is no number; JSON could not give it back.
    """
    if not all(math.isfinite(word.confidence) for word in final.words):
        raise ValueError("a word's confidence is not a finite number")
    return to_json(final)


def epochs_from(text: str) -> tuple[EpochStart, ...]:
    return _epochs.decode(text)


def options_from(text: str) -> Options:
    return _options.decode(text)


def integers_from(text: str) -> tuple[int, ...]:
    return _integers.decode(text)


def interview_from(row: tuple[str, str, int | None, int | None, int | None]) -> Interview:
    name, status, scheduled_ms, started_ms, ended_ms = row
    return msgspec.convert(
        {"id": name, "status": status, "scheduled_ms": scheduled_ms, "started_ms": started_ms, "ended_ms": ended_ms},
        Interview,
    )


def stream_from(row: Sequence[object], anchors: Iterable[tuple[Position, int]]) -> Stream:
    """A stream from ``STREAM_COLUMNS`` and its anchors (position and UTC ms, by position)."""
    raw = msgspec.convert(row, StreamRow)
    return Stream(
        id=raw.id,
        interview=raw.interview,
        order=raw.order,
        status=raw.status,
        options=_options.decode(raw.options),
        engine=raw.engine,
        epochs=_epochs.decode(raw.epochs),
        anchors=tuple(Anchor(position=position, utc_ms=at) for position, at in anchors),
        restarts=_integers.decode(raw.restarts),
        started_ms=raw.started_ms,
        ended_ms=raw.ended_ms,
        position=raw.position,
        silence_ms=_integers.decode(raw.silence_ms),
        loudest_discarded_dbfs=tuple(
            -math.inf if level is None else level for level in _levels.decode(raw.loudest_discarded_dbfs)
        ),
    )


def anchors_of(connection: sqlite3.Connection, stream: str) -> list[tuple[Position, int]]:
    query = "SELECT position, at FROM anchors WHERE stream = ? ORDER BY position"
    return connection.execute(query, (stream,)).fetchall()
