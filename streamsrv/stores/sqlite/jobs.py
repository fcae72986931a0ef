"""Jobs, as functions on a connection."""

from __future__ import annotations

import sqlite3
from typing import Final

import msgspec

from streamsrv.stores.base import OPEN_JOBS, Job
from streamsrv.stores.sqlite import rows

MAX_ENDED = 10_000
"""Jobs kept after their end; older ones are forgotten when another is kept, their transcripts are not."""

_job = msgspec.json.Decoder(Job)
_OPEN: Final = "(" + ", ".join(f"'{state}'" for state in sorted(OPEN_JOBS)) + ")"


def keep(connection: sqlite3.Connection, job: Job) -> None:
    """Insert or replace; old ended ones make room."""
    connection.execute(
        """INSERT INTO jobs (_id, interview, state, document) VALUES (?, ?, ?, ?)
            ON CONFLICT (_id) DO UPDATE SET state = excluded.state, document = excluded.document""",
        (job.id, job.interview, job.state, rows.to_json(job)),
    )
    connection.execute(
        f"""DELETE FROM jobs WHERE state NOT IN {_OPEN} AND ord <=
            (SELECT ord FROM jobs WHERE state NOT IN {_OPEN} ORDER BY ord DESC LIMIT 1 OFFSET ?)""",
        (MAX_ENDED,),
    )


def read(connection: sqlite3.Connection, job: str) -> Job | None:
    row = connection.execute("SELECT document FROM jobs WHERE _id = ?", (job,)).fetchone()
    return None if row is None else _job.decode(row[0])


def unfinished(connection: sqlite3.Connection) -> tuple[Job, ...]:
    """By order."""
    found = connection.execute(f"SELECT document FROM jobs WHERE state IN {_OPEN} ORDER BY ord")
    return tuple(_job.decode(document) for (document,) in found)
