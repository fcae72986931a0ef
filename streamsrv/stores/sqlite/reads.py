"""Everything that only reads, as functions on a reader's connection."""

from __future__ import annotations

import sqlite3

from streamsrv.events import Final
from streamsrv.stores.base import EpochStart, Interview, StoredFinal, Stream
from streamsrv.stores.sqlite import rows


def interview(connection: sqlite3.Connection, name: str) -> Interview | None:
    row = connection.execute(
        "SELECT _id, status, scheduledAt, startedAt, endedAt FROM interviews WHERE _id = ?", (name,)
    ).fetchone()
    return None if row is None else rows.interview_from(row)


def streams(connection: sqlite3.Connection, name: str) -> tuple[Stream, ...]:
    """By order."""
    return _streams(connection, "s.interview = ?", name)


def live_streams(connection: sqlite3.Connection) -> tuple[Stream, ...]:
    return _streams(connection, "s.status = ?", "live")


def _streams(connection: sqlite3.Connection, condition: str, value: str) -> tuple[Stream, ...]:
    query = f"SELECT {rows.STREAM_COLUMNS} FROM {rows.STREAM_TABLES} WHERE {condition} ORDER BY s.interview, s.ord"
    found = connection.execute(query, (value,)).fetchall()
    return tuple(rows.stream_from(row, rows.anchors_of(connection, row[0])) for row in found)


def finals(connection: sqlite3.Connection, name: str) -> tuple[StoredFinal, ...]:
    """All valid finals of an interview, by stream order, channel, start."""
    epochs = connection.execute("SELECT _id, epochs FROM streams WHERE interview = ?", (name,)).fetchall()
    bounds = {stream: rows.limits(rows.epochs_from(text)) for stream, text in epochs}
    found = connection.execute(
        """SELECT g.stream, g.epoch, g.channel, g.start, g.document FROM segments AS g JOIN streams AS s
            ON s._id = g.stream WHERE g.interview = ? ORDER BY s.ord, g.channel, g.start, g.epoch, g.segment""",
        (name,),
    )
    return tuple(
        StoredFinal(stream=stream, epoch=epoch, final=rows.final_from(document))
        for stream, epoch, channel, start, document in found
        if rows.counts(bounds[stream], epoch, channel, start)
    )


def finals_before(connection: sqlite3.Connection, stream: Stream) -> tuple[Final, ...]:
    """Finals that were valid when the stream's newest epoch (as given) began: they change no more."""
    epochs: tuple[EpochStart, ...] = stream.epochs
    bounds = rows.limits(epochs)
    found = connection.execute(
        """SELECT epoch, channel, start, document FROM segments
            WHERE interview = ? AND stream = ? AND epoch < ? ORDER BY channel, start, epoch, segment""",
        (stream.interview, stream.id, epochs[-1].epoch),
    )
    return tuple(
        rows.final_from(document)
        for epoch, channel, start, document in found
        if rows.counts(bounds, epoch, channel, start)
    )
