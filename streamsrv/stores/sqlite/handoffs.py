"""What waits for the sinks, as functions on a connection.  A row is written with what it hands on, in one transaction,
and goes when the sink has it; so the table is as long as the sinks are behind."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from typing import NamedTuple

import msgspec

from streamsrv.stores import validity
from streamsrv.stores.base import StoredFinal, StreamKey
from streamsrv.stores.handoff import (
    Completion,
    DeadLetter,
    Deletion,
    Handoff,
    HandoffKind,
    Lease,
    Outgoing,
    SinkFigures,
    Waiting,
)
from streamsrv.stores.sqlite import reads, rows

MAX_WAITING = 1_000
"""Handoffs read in one go; who wants more marks these and asks again."""

_completion = msgspec.json.Decoder(Completion)
_deletion = msgspec.json.Decoder(Deletion)
_PUT = """INSERT INTO handoffs (sink, interview, kind, storedAt, segment, document)
    SELECT value, ?2, ?3, ?4, ?5, ?6 FROM json_each(?1)"""


class Order(NamedTuple):
    """To whom what is stored is to be handed."""

    sinks: str
    """Names, as a JSON list."""
    now_ms: int


# --- in the transaction that stores what is handed on ------------------------------------------------------------


def put_final(connection: sqlite3.Connection, order: Order, key: StreamKey, row: int | None) -> None:
    """A final is stored, as this row of ``segments``."""
    connection.execute(_PUT, (order.sinks, key.interview, "final", order.now_ms, row, None))


def put_completion(connection: sqlite3.Connection, order: Order, interview: str) -> None:
    """The interview is complete."""
    revision, started_ms, ended_ms = connection.execute(
        "SELECT revision, startedAt, endedAt FROM interviews WHERE _id = ?", (interview,)
    ).fetchone()
    document = rows.to_json(Completion(revision=revision, started_ms=started_ms, ended_ms=ended_ms))
    connection.execute(_PUT, (order.sinks, interview, "completed", order.now_ms, None, document))


def withdraw_completions(connection: sqlite3.Connection, interview: str) -> None:
    """They are not true any more."""
    connection.execute("DELETE FROM handoffs WHERE interview = ? AND kind = 'completed'", (interview,))


def put_deletion(connection: sqlite3.Connection, order: Order, interview: str) -> None:
    """The interview is doomed; its finals are not handed on any more."""
    withdraw_completions(connection, interview)
    streams = connection.execute("SELECT _id FROM streams WHERE interview = ? ORDER BY ord", (interview,)).fetchall()
    document = rows.to_json(Deletion(streams=tuple(row[0] for row in streams), deleted_ms=order.now_ms))
    connection.execute(_PUT, (order.sinks, interview, "deleted", order.now_ms, None, document))


def bite(connection: sqlite3.Connection, interview: str, most: int) -> bool:
    """Delete some of what waits of a doomed interview's finals; whether all is gone."""
    gone = connection.execute(
        """DELETE FROM handoffs WHERE place IN
            (SELECT place FROM handoffs WHERE interview = ? AND kind = 'final' LIMIT ?)""",
        (interview, most),
    )
    return gone.rowcount < most


def tidy(connection: sqlite3.Connection) -> None:
    """At the start, alone: nobody holds a lease any more; finals that the release before deleted are not waited for."""
    connection.execute("DELETE FROM leases")
    connection.execute(
        """DELETE FROM handoffs WHERE kind = 'final' AND NOT EXISTS
            (SELECT 1 FROM segments AS g WHERE g.rowid = handoffs.segment AND g.interview = handoffs.interview)"""
    )


# --- the relay's reads -------------------------------------------------------------------------------------------


def due(connection: sqlite3.Connection, sink: str, *, after: str, limit: int) -> tuple[str, ...]:
    """Leaps from name to name through the index, however many handoffs each has."""
    found = connection.execute(
        """WITH RECURSIVE names (name) AS (
            SELECT min(interview) FROM handoffs WHERE sink = ?1 AND state = 'pending' AND interview > ?2
            UNION ALL
            SELECT (SELECT min(interview) FROM handoffs WHERE sink = ?1 AND state = 'pending' AND interview > name)
                FROM names WHERE name IS NOT NULL)
        SELECT name FROM names WHERE name IS NOT NULL LIMIT ?3""",
        (sink, after, limit),
    )
    return tuple(row[0] for row in found)


class _Row(NamedTuple):
    place: int
    stored_ms: int
    attempts: int
    kind: HandoffKind
    document: str | None
    stream: str | None
    epoch: int
    channel: int
    start: int
    final: str | None


def waiting(connection: sqlite3.Connection, sink: str, interview: str, *, limit: int) -> Waiting:
    """Oldest first; of a doomed interview its finals are left out."""
    found = connection.execute(
        """SELECT h.place, h.storedAt, h.attempts, h.kind, h.document, g.stream, g.epoch, g.channel, g.start, g.document
            FROM handoffs AS h LEFT JOIN segments AS g
                ON h.kind = 'final' AND g.rowid = h.segment AND g.interview = h.interview
            WHERE h.sink = ?1 AND h.state = 'pending' AND h.interview = ?2 AND (h.kind <> 'final'
                OR g.stream IS NOT NULL AND EXISTS (SELECT 1 FROM interviews WHERE _id = ?2 AND deletedAt IS NULL))
            ORDER BY h.place LIMIT ?3""",
        (sink, interview, min(limit, MAX_WAITING)),
    ).fetchall()
    streams = reads.streams(connection, interview) if any(row[3] == "final" for row in found) else ()
    bounds = {stream.id: validity.limits(stream.epochs) for stream in streams}
    return Waiting(streams=streams, handoffs=tuple(_handoff(_Row(*row), bounds) for row in found))


def _handoff(row: _Row, bounds: Mapping[str, validity.Limits]) -> Handoff:
    what: Outgoing
    superseded = False
    if row.kind == "final" and row.stream is not None and row.final is not None:
        what = StoredFinal(stream=row.stream, epoch=row.epoch, final=rows.final_from(row.final))
        superseded = not validity.counts(bounds.get(row.stream, {}), row.epoch, row.channel, row.start)
    else:
        decoder = _completion if row.kind == "completed" else _deletion
        what = decoder.decode(row.document or "")
    return Handoff(place=row.place, stored_ms=row.stored_ms, attempts=row.attempts, what=what, superseded=superseded)


# --- the relay's words -------------------------------------------------------------------------------------------


def handed(connection: sqlite3.Connection, sink: str, interview: str, places: Collection[int]) -> None:
    """Only rows of this sink and interview are touched, whatever the places say."""
    connection.execute(
        """DELETE FROM handoffs WHERE place IN (SELECT value FROM json_each(?)) AND sink = ? AND interview = ?""",
        (rows.to_json(list(places)), sink, interview),
    )


class Refusal(NamedTuple):
    """One thing that one sink will not take."""

    sink: str
    interview: str
    place: int
    reason: str
    dead: bool
    now_ms: int


def refused(connection: sqlite3.Connection, refusal: Refusal) -> None:
    connection.execute(
        """UPDATE handoffs SET attempts = attempts + 1, reason = ?4, state = iif(?5, 'dead', 'pending'),
            parkedAt = iif(?5, ?6, NULL) WHERE place = ?3 AND sink = ?1 AND interview = ?2 AND state = 'pending'""",
        refusal,
    )


def lease(connection: sqlite3.Connection, sink: str, interview: str, wanted: Lease, over: Lease | None) -> Lease | None:
    """Another node's that is in the way; ``None``: taken."""
    over = over or wanted
    taken = connection.execute(
        """INSERT INTO leases (sink, interview, node, until) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (sink, interview) DO UPDATE SET node = ?3, until = ?4
                WHERE node = ?3 OR node = ?5 AND until = ?6""",
        (sink, interview, wanted.node, wanted.until_ms, over.node, over.until_ms),
    )
    if taken.rowcount == 1:
        return None
    node, until_ms = connection.execute(
        "SELECT node, until FROM leases WHERE sink = ? AND interview = ?", (sink, interview)
    ).fetchone()
    return Lease(node=node, until_ms=until_ms)


def release(connection: sqlite3.Connection, sink: str, interview: str, *, node: str) -> None:
    connection.execute("DELETE FROM leases WHERE sink = ? AND interview = ? AND node = ?", (sink, interview, node))


# --- what operators ask ------------------------------------------------------------------------------------------


def figures(connection: sqlite3.Connection) -> tuple[SinkFigures, ...]:
    """Reads an index once, all of it."""
    found = connection.execute(
        """SELECT c.sink, c.pending, c.dead, h.storedAt FROM (SELECT sink, sum(state = 'pending') AS pending,
                sum(state = 'dead') AS dead, min(iif(state = 'pending', place, NULL)) AS oldest
                FROM handoffs GROUP BY sink) AS c LEFT JOIN handoffs AS h ON h.place = c.oldest ORDER BY c.sink"""
    )
    return tuple(
        SinkFigures(sink=sink, pending=pending, dead=dead, oldest_ms=oldest) for sink, pending, dead, oldest in found
    )


def dead_letters(connection: sqlite3.Connection, *, sink: str | None, after: int, limit: int) -> tuple[DeadLetter, ...]:
    found = connection.execute(
        """SELECT h.sink, h.interview, h.place, h.kind, g.stream, g.channel, g.segment,
                json_extract(h.document, '$.revision'), h.attempts, h.reason, h.parkedAt
            FROM handoffs AS h LEFT JOIN segments AS g ON h.kind = 'final' AND g.rowid = h.segment
            WHERE h.state = 'dead' AND h.place > ?1 AND (?2 IS NULL OR h.sink = ?2) ORDER BY h.place LIMIT ?3""",
        (after, sink, limit),
    )
    names = DeadLetter.__struct_fields__
    return tuple(msgspec.convert(dict(zip(names, row, strict=True)), DeadLetter) for row in found)


def retry(connection: sqlite3.Connection, *, sink: str | None, interview: str | None) -> int:
    return connection.execute(
        """UPDATE handoffs SET state = 'pending', attempts = 0, parkedAt = NULL
            WHERE state = 'dead' AND (?1 IS NULL OR sink = ?1) AND (?2 IS NULL OR interview = ?2)""",
        (sink, interview),
    ).rowcount
