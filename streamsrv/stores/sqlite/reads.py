"""Everything that only reads, as functions on a reader's connection."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from streamsrv.events import Final
from streamsrv.stores import validity
from streamsrv.stores.base import (
    EpochStart,
    FinalName,
    Interview,
    InterviewStatus,
    ListedInterview,
    ListPlace,
    PlacedFinal,
    StoredFinal,
    Stream,
    StreamKey,
)
from streamsrv.stores.sqlite import rows

MAX_PLACES = 500
"""Finals read in one go by who reads on; a caller that wants more asks again."""
MAX_MS = (1 << 63) - 1
INTERVIEW_COLUMNS = "_id, status, scheduledAt, startedAt, endedAt"
_AT = "coalesce(startedAt, scheduledAt, 0)"


def interview(connection: sqlite3.Connection, name: str) -> Interview | None:
    row = connection.execute(
        f"SELECT {INTERVIEW_COLUMNS} FROM interviews WHERE _id = ? AND deletedAt IS NULL", (name,)
    ).fetchone()
    return None if row is None else rows.interview_from(row)


def streams(connection: sqlite3.Connection, name: str) -> tuple[Stream, ...]:
    """By order."""
    return () if interview(connection, name) is None else _streams(connection, "s.interview = ?", name)


def left_streams(connection: sqlite3.Connection) -> tuple[StreamKey, ...]:
    """By interview and order."""
    found = connection.execute(
        """SELECT interview, _id, epoch FROM streams WHERE status = 'live' AND NOT EXISTS
            (SELECT 1 FROM jobs
                WHERE state IN ('queued', 'running') AND json_extract(document, '$.stream') = streams._id)
            ORDER BY interview, ord"""
    )
    return tuple(StreamKey(interview=interview, stream=stream, epoch=epoch) for interview, stream, epoch in found)


def _streams(connection: sqlite3.Connection, condition: str, value: str) -> tuple[Stream, ...]:
    query = f"SELECT {rows.STREAM_COLUMNS} FROM {rows.STREAM_TABLES} WHERE {condition} ORDER BY s.interview, s.ord"
    found = connection.execute(query, (value,)).fetchall()
    return tuple(rows.stream_from(row, rows.anchors_of(connection, row[0])) for row in found)


def finals(connection: sqlite3.Connection, name: str) -> tuple[StoredFinal, ...]:
    """All valid finals of an interview, by stream order, channel, start."""
    bounds = _bounds(connection, name)
    found = connection.execute(
        """SELECT g.stream, g.epoch, g.channel, g.start, g.document FROM segments AS g JOIN streams AS s
            ON s._id = g.stream WHERE g.interview = ? ORDER BY s.ord, g.channel, g.start, g.epoch, g.segment""",
        (name,),
    )
    return tuple(
        StoredFinal(stream=stream, epoch=epoch, final=rows.final_from(document))
        for stream, epoch, channel, start, document in found
        if stream in bounds and validity.counts(bounds[stream], epoch, channel, start)
    )


def place_of(connection: sqlite3.Connection, name: str, wanted: FinalName) -> int:
    """The place of a final: its row's number.  Rows are numbered as they are written, and never moved."""
    bounds = _bounds(connection, name).get(wanted.stream, {})
    found = connection.execute(
        "SELECT rowid, epoch, start FROM segments WHERE interview = ? AND stream = ? AND channel = ? AND segment = ?",
        (name, wanted.stream, wanted.channel, wanted.segment),
    )
    return max((place for place, epoch, at in found if validity.counts(bounds, epoch, wanted.channel, at)), default=0)


def finals_since(connection: sqlite3.Connection, name: str, *, place: int, limit: int) -> tuple[PlacedFinal, ...]:
    """Valid finals stored after ``place``, in that order."""
    bounds = _bounds(connection, name)
    found: list[PlacedFinal] = []
    while places := _places(connection, name, place, limit):
        place = places[-1]
        marks = ", ".join("?" * len(places))
        kept = connection.execute(
            f"SELECT rowid, stream, epoch, channel, start, document FROM segments WHERE rowid IN ({marks}) "
            "ORDER BY rowid",
            places,
        )
        found += [
            PlacedFinal(place=at, stream=stream, final=rows.final_from(document))
            for at, stream, epoch, channel, start, document in kept
            if stream in bounds and validity.counts(bounds[stream], epoch, channel, start)
        ]
        if found:
            break
    return tuple(found)


def _places(connection: sqlite3.Connection, name: str, place: int, limit: int) -> list[int]:
    """Numbers of the next rows; only an index is read."""
    query = """SELECT rowid FROM segments WHERE stream IN (SELECT _id FROM streams WHERE interview = ?) AND rowid > ?
        ORDER BY rowid LIMIT ?"""
    return [row[0] for row in connection.execute(query, (name, place, min(limit, MAX_PLACES)))]


def _bounds(connection: sqlite3.Connection, name: str) -> dict[str, validity.Limits]:
    """Per stream of the interview, where its epochs no longer count; nothing of one that is being deleted."""
    epochs = connection.execute(
        """SELECT s._id, s.epochs FROM streams AS s JOIN interviews AS i ON i._id = s.interview
            WHERE s.interview = ? AND i.deletedAt IS NULL""",
        (name,),
    ).fetchall()
    return {stream: validity.limits(rows.epochs_from(text)) for stream, text in epochs}


class Wanted(NamedTuple):
    """Which interviews a list asks for."""

    status: InterviewStatus | None
    since_ms: int | None
    until_ms: int | None
    after: ListPlace | None
    limit: int


def interviews(connection: sqlite3.Connection, wanted: Wanted) -> tuple[ListedInterview, ...]:
    """Newest first."""
    after = wanted.after or ListPlace(at_ms=MAX_MS, id="")
    since_ms, until_ms = (
        default if ms is None else ms for ms, default in ((wanted.since_ms, 0), (wanted.until_ms, MAX_MS))
    )
    found = connection.execute(
        f"""SELECT {INTERVIEW_COLUMNS}, {_AT}, (SELECT count(*) FROM streams WHERE interview = i._id)
            FROM interviews AS i WHERE {_AT} >= ?1 AND {_AT} < ?2 AND ({_AT}, _id) < (?3, ?4)
            AND deletedAt IS NULL AND (?5 IS NULL OR status = ?5) ORDER BY {_AT} DESC, _id DESC LIMIT ?6""",
        (since_ms, until_ms, after.at_ms, after.id, wanted.status, wanted.limit),
    )
    return tuple(ListedInterview(interview=rows.interview_from(row[:5]), at_ms=row[5], streams=row[6]) for row in found)


def expired(connection: sqlite3.Connection, before_ms: int, limit: int) -> tuple[str, ...]:
    """As the contract says; at most 10 000 ended jobs are kept, so reading them through is cheap."""
    doomed = connection.execute("SELECT _id FROM interviews WHERE deletedAt IS NOT NULL LIMIT ?", (limit,)).fetchall()
    over = connection.execute(
        """SELECT _id FROM interviews WHERE status = 'completed' AND endedAt < ? AND deletedAt IS NULL
            ORDER BY endedAt LIMIT ?""",
        (before_ms, limit),
    ).fetchall()
    refused = connection.execute(
        """SELECT interview FROM jobs WHERE interview NOT IN (SELECT _id FROM interviews)
            GROUP BY interview HAVING max(coalesce(json_extract(document, '$.ended_ms'), ?1)) < ?1 LIMIT ?2""",
        (before_ms, limit),
    ).fetchall()
    return tuple(row[0] for row in (*doomed, *over, *refused))[:limit]


def finals_before(connection: sqlite3.Connection, stream: Stream) -> tuple[Final, ...]:
    """Finals that were valid when the stream's newest epoch (as given) began: they change no more."""
    epochs: tuple[EpochStart, ...] = stream.epochs
    bounds = validity.limits(epochs)
    found = connection.execute(
        """SELECT epoch, channel, start, document FROM segments
            WHERE interview = ? AND stream = ? AND epoch < ? ORDER BY channel, start, epoch, segment""",
        (stream.interview, stream.id, epochs[-1].epoch),
    )
    return tuple(
        rows.final_from(document)
        for epoch, channel, start, document in found
        if validity.counts(bounds, epoch, channel, start)
    )
