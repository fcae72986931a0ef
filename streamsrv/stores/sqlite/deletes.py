"""Deleting an interview: it is doomed in one transaction, then taken away in small bites, so that no final of another
interview waits for long.  Each can be repeated; what a crash interrupts is found by ``reads.expired``."""

from __future__ import annotations

import sqlite3

from streamsrv.stores.sqlite import handoffs
from streamsrv.stores.sqlite.handoffs import Order

BITE = 500
"""Finals, handoffs or anchors deleted in one transaction."""


def doom(connection: sqlite3.Connection, interview: str, *, now_ms: int, order: Order | None = None) -> bool:
    """Make it vanish for readers and take its streams from their owners; the sinks are to hear of it, once.

    Returns:
        False when there was nothing of it.
    """
    # A file that was never heard has a job, and no interview yet.
    jobs = connection.execute("DELETE FROM jobs WHERE interview = ?", (interview,)).rowcount
    known = connection.execute("SELECT deletedAt IS NULL FROM interviews WHERE _id = ?", (interview,)).fetchone()
    if known is None:
        return jobs > 0
    if known[0]:
        connection.execute("UPDATE interviews SET deletedAt = ? WHERE _id = ?", (now_ms, interview))
        if order is not None:
            handoffs.put_deletion(connection, order, interview)
    connection.execute(
        "DELETE FROM progress WHERE stream IN (SELECT _id FROM streams WHERE interview = ?)", (interview,)
    )
    # No connection has this epoch: what a session still offers is refused as outdated.
    connection.execute(
        "UPDATE streams SET status = 'ended', epoch = epoch + 1 WHERE interview = ? AND status = 'live'", (interview,)
    )
    return True


def bite(connection: sqlite3.Connection, interview: str) -> bool:
    """Delete some of what is left of a doomed interview.

    Returns:
        Whether all is gone.
    """
    if not connection.execute(
        "SELECT 1 FROM interviews WHERE _id = ? AND deletedAt IS NOT NULL", (interview,)
    ).fetchone():
        return True
    if not handoffs.bite(connection, interview, BITE):
        return False
    gone = connection.execute(
        "DELETE FROM segments WHERE rowid IN (SELECT rowid FROM segments WHERE interview = ? LIMIT ?)",
        (interview, BITE),
    )
    if gone.rowcount == BITE:
        return False
    gone = connection.execute(
        """DELETE FROM anchors WHERE (stream, position) IN (SELECT a.stream, a.position FROM anchors AS a
            JOIN streams AS s ON s._id = a.stream WHERE s.interview = ? LIMIT ?)""",
        (interview, BITE),
    )
    if gone.rowcount == BITE:
        return False
    connection.execute("DELETE FROM streams WHERE interview = ?", (interview,))
    connection.execute("DELETE FROM interviews WHERE _id = ?", (interview,))
    return True
