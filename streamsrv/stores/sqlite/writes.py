"""Everything that changes the database, as functions on a connection inside a transaction.

``keep_final`` without sinks and ``keep_progress`` change something by at most one statement, so SQLite itself undoes a
failed one; the others need a savepoint.  All can be repeated: a caller that got no answer calls again.
"""

from __future__ import annotations

import hmac
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from streamsrv.commands import Options
from streamsrv.errors import Conflict, Forbidden, NotFound, StreamEnded
from streamsrv.facts import ChannelStart, Position
from streamsrv.stores import validity
from streamsrv.stores.base import Anchor, EpochStart, Stream, StreamKey, StreamStats
from streamsrv.stores.sqlite import handoffs, rows
from streamsrv.stores.sqlite.handoffs import Order

MAX_EPOCHS = 4096
"""Times a stream may be taken over; then resuming it is refused and the client begins a new stream."""
MAX_ANCHORS = 10_000
"""Anchors kept per stream; later ones are dropped, and wall times from there on follow the last one kept."""

_KEEP = """INSERT INTO segments (interview, stream, epoch, channel, segment, utterance, start, stop, document, handoff)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10
    WHERE EXISTS (SELECT 1 FROM streams WHERE _id = ?2 AND interview = ?1 AND epoch = ?3)
    ON CONFLICT (interview, stream, epoch, channel, segment) DO NOTHING"""
_PROGRESS = "UPDATE progress SET restarts = ? WHERE stream = ? AND epoch = ?"
_ANCHOR = """INSERT INTO anchors (stream, position, at) SELECT ?1, ?2, ?3
    WHERE (SELECT count(*) FROM anchors WHERE stream = ?1) < ?4 ON CONFLICT DO NOTHING"""


class Begun(NamedTuple):
    """A new epoch, as the writer made it; its finals are read afterwards, outside the writer."""

    stream: Stream
    starts: tuple[ChannelStart, ...]


class New(NamedTuple):
    """A stream to be recorded."""

    interview: str
    stream: str
    token_hash: bytes
    options: Options
    engine: str
    now_ms: int


def begin_stream(connection: sqlite3.Connection, new: New) -> Stream:
    """Record a stream, or find it recorded already.

    Raises:
        Conflict: another stream has this id, or the interview is being deleted.
    """
    query = "SELECT interview, tokenHash FROM streams WHERE _id = ?"
    known = connection.execute(query, (new.stream,)).fetchone()
    if known is None:
        _insert(connection, new)
    elif known[0] != new.interview or not hmac.compare_digest(known[1], new.token_hash):
        raise Conflict("another stream has this id", hint="use a new id for each stream")
    return read_stream(connection, new.stream)


def _insert(connection: sqlite3.Connection, new: New) -> None:
    if connection.execute(
        "SELECT 1 FROM interviews WHERE _id = ? AND deletedAt IS NOT NULL", (new.interview,)
    ).fetchone():
        raise Conflict("the interview is being deleted", hint="try again when it is gone, or use another id")
    connection.execute(
        """INSERT INTO interviews (_id, status, startedAt) VALUES (?1, 'live', ?2) ON CONFLICT (_id) DO UPDATE
            SET status = 'live', startedAt = coalesce(startedAt, excluded.startedAt), endedAt = NULL""",
        (new.interview, new.now_ms),
    )
    handoffs.withdraw_completions(connection, new.interview)
    zeros = (0,) * new.options.tracks
    restarts, options = rows.to_json(zeros), rows.to_json(new.options)
    epochs = rows.to_json((EpochStart(epoch=1, begins=zeros),))
    connection.execute(
        """INSERT INTO streams
            (_id, interview, ord, status, tokenHash, options, engine, epoch, epochs, restarts, startedAt)
            SELECT ?1, ?2, 1 + coalesce(max(ord), 0), 'live', ?3, ?4, ?5, 1, ?6, ?7, ?8
            FROM streams WHERE interview = ?2""",
        (new.stream, new.interview, new.token_hash, options, new.engine, epochs, restarts, new.now_ms),
    )
    connection.execute("INSERT INTO progress VALUES (?, 1, ?)", (new.stream, restarts))


def configure_stream(connection: sqlite3.Connection, key: StreamKey, options: Options) -> None:
    """Nothing happens when a newer epoch owns the stream.

    Raises:
        Conflict: finals of the stream are stored already.
    """
    owner = _owner(connection, key)
    if owner.epoch != key.epoch or owner.ended:
        return
    if connection.execute(
        "SELECT 1 FROM segments WHERE interview = ? AND stream = ? LIMIT 1", (key.interview, key.stream)
    ).fetchone():
        raise Conflict("the stream has finals; its options are settled")
    zeros = (0,) * options.tracks
    text = connection.execute("SELECT epochs FROM streams WHERE _id = ?", (key.stream,)).fetchone()[0]
    epochs = tuple(msgspec.structs.replace(epoch, begins=zeros) for epoch in rows.epochs_from(text))
    connection.execute(
        "UPDATE streams SET options = ?, epochs = ? WHERE _id = ?",
        (rows.to_json(options), rows.to_json(epochs), key.stream),
    )
    connection.execute(_PROGRESS, (rows.to_json(zeros), key.stream, key.epoch))


def resume_stream(connection: sqlite3.Connection, stream: str, token_hash: bytes) -> Begun:
    """Allot the stream's next epoch, beginning per channel at the end of its contiguous valid finals.

    Raises:
        NotFound, Forbidden, StreamEnded: as the contract says.
        Conflict: it was taken over ``MAX_EPOCHS`` times.
    """
    _admit(connection, stream, token_hash)
    before = read_stream(connection, stream)
    if len(before.epochs) >= MAX_EPOCHS:
        raise Conflict(f"the stream was resumed {MAX_EPOCHS} times", hint="begin a new stream")
    starts = _starts(connection, before)
    begins = tuple(start.kept_to for start in starts)
    epoch = EpochStart(epoch=before.epochs[-1].epoch + 1, begins=begins)
    after = msgspec.structs.replace(before, epochs=(*before.epochs, epoch))
    connection.execute(
        "UPDATE streams SET epoch = ?, epochs = ? WHERE _id = ?", (epoch.epoch, rows.to_json(after.epochs), stream)
    )
    connection.execute("UPDATE progress SET epoch = ? WHERE stream = ?", (epoch.epoch, stream))
    return Begun(after, starts)


def keep_final(
    connection: sqlite3.Connection,
    key: StreamKey,
    place: tuple[int, int, int, Position, Position],
    document: str,
    order: Order | None = None,
) -> bool:
    """Insert one final, and that it is to be handed on.

    Args:
        place: channel, segment, utterance, start, stop.
        order: to whom; ``None``: to nobody.

    Raises:
        NotFound: no such stream in this interview.
        ValueError: another final is kept under this key; a final is written once.
    """
    sinks = "[]" if order is None else order.sinks
    kept = connection.execute(_KEEP, (key.interview, key.stream, key.epoch, *place, document, sinks))
    if kept.rowcount == 1:
        if order is not None:
            handoffs.put_final(connection, order, key, kept.lastrowid)
        return True
    return _kept_before(connection, key, place, document)


def _kept_before(
    connection: sqlite3.Connection, key: StreamKey, place: tuple[int, int, int, Position, Position], document: str
) -> bool:
    """Why nothing was inserted: the same final is there already, or a newer epoch owns the stream."""
    owner = _owner(connection, key)
    channel, segment, _, start, stop = place
    kept = connection.execute(
        """SELECT start, stop, json_extract(document, '$.text') = json_extract(?6, '$.text') FROM segments
            WHERE interview = ?1 AND stream = ?2 AND epoch = ?3 AND channel = ?4 AND segment = ?5""",
        (key.interview, key.stream, key.epoch, channel, segment, document),
    ).fetchone()
    if kept is None:
        return False
    bounds = validity.limits(rows.epochs_from(owner.epochs))
    if not validity.counts(bounds, key.epoch, channel, start):
        return False
    if tuple(kept) != (start, stop, 1):
        raise ValueError("another final is kept under this key")
    return True


def keep_progress(connection: sqlite3.Connection, key: StreamKey, restarts: str) -> bool:
    """Replace the restart points (JSON, per channel)."""
    if connection.execute(_PROGRESS, (restarts, key.stream, key.epoch)).rowcount == 1:
        return True
    owner = _owner(connection, key)
    return owner.epoch == key.epoch and _settle(connection, key, restarts)


def _settle(connection: sqlite3.Connection, key: StreamKey, restarts: str) -> bool:
    """The stream ended meanwhile; its restart points lie in its own row."""
    connection.execute("UPDATE streams SET restarts = ? WHERE _id = ?", (restarts, key.stream))
    return True


def keep_progress_and_anchors(
    connection: sqlite3.Connection, key: StreamKey, restarts: str, anchors: Sequence[Anchor]
) -> bool:
    """As ``keep_progress``; an anchor at a position that has one already changes nothing."""
    if not keep_progress(connection, key, restarts):
        return False
    for anchor in anchors:
        connection.execute(_ANCHOR, (key.stream, anchor.position, anchor.utc_ms, MAX_ANCHORS))
    return True


def end_stream(
    connection: sqlite3.Connection, key: StreamKey, *, stats: StreamStats, now_ms: int, order: Order | None = None
) -> bool:
    """Mark it ended; its restart points move into its own row, so that ``progress`` holds only live streams."""
    owner = _owner(connection, key)
    if owner.epoch != key.epoch:
        return False
    if owner.ended:
        return True
    connection.execute(
        """UPDATE streams SET status = 'ended', endedAt = ?2, silenceMs = ?3, loudestDiscardedDbfs = ?4, position = ?5,
            restarts = coalesce((SELECT restarts FROM progress WHERE stream = ?1), restarts) WHERE _id = ?1""",
        (
            key.stream,
            now_ms,
            rows.to_json(stats.silence_ms),
            rows.to_json(stats.loudest_discarded_dbfs),
            stats.position,
        ),
    )
    connection.execute("DELETE FROM progress WHERE stream = ?", (key.stream,))
    completed = connection.execute(
        """UPDATE interviews SET status = 'completed', endedAt = ?2, revision = revision + 1 WHERE _id = ?1
            AND NOT EXISTS (SELECT 1 FROM streams WHERE interview = ?1 AND status = 'live')""",
        (key.interview, now_ms),
    )
    if completed.rowcount == 1 and order is not None:
        handoffs.put_completion(connection, order, key.interview)
    return True


def read_stream(connection: sqlite3.Connection, stream: str) -> Stream:
    """The stream as it is now; it must exist."""
    query = f"SELECT {rows.STREAM_COLUMNS} FROM {rows.STREAM_TABLES} WHERE s._id = ?"
    row = connection.execute(query, (stream,)).fetchone()
    return rows.stream_from(row, rows.anchors_of(connection, stream))


class _Owner(NamedTuple):
    epoch: int
    ended: bool
    epochs: str


def _owner(connection: sqlite3.Connection, key: StreamKey) -> _Owner:
    """Who may write to the stream.

    Raises:
        NotFound: no such stream in this interview.
    """
    row = connection.execute(
        "SELECT epoch, status = 'ended', epochs FROM streams WHERE _id = ? AND interview = ?",
        (key.stream, key.interview),
    ).fetchone()
    if row is None:
        raise NotFound("no such stream in this interview")
    return _Owner(*row)


def _admit(connection: sqlite3.Connection, stream: str, token_hash: bytes) -> None:
    row = connection.execute(
        """SELECT s.tokenHash, s.status FROM streams AS s JOIN interviews AS i ON i._id = s.interview
            WHERE s._id = ? AND i.deletedAt IS NULL""",
        (stream,),
    ).fetchone()
    if row is None:
        raise NotFound("no such stream")
    if not hmac.compare_digest(row[0], token_hash):
        raise Forbidden("the resume token is not this stream's", hint="use the token from the stream's own 'ready'")
    if row[1] == "ended":
        raise StreamEnded("the stream has ended")


def _starts(connection: sqlite3.Connection, stream: Stream) -> tuple[ChannelStart, ...]:
    found = connection.execute(
        """SELECT channel, segment, epoch, utterance, start, stop FROM segments
            WHERE interview = ? AND stream = ? ORDER BY channel, segment, epoch""",
        (stream.interview, stream.id),
    )
    return validity.continuations(stream.epochs, stream.restarts, (validity.Placed(*row) for row in found))
