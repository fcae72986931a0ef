"""The tables, their versions, and opening a file with care.

``interviews``  one row per interview; ``status`` scheduled, live, completed or failed; times in ms UTC; with
                ``deletedAt`` it is gone for readers, and what is left of it is being deleted in small bites;
                ``revision`` counts how often it was completed.
``streams``     one row per stream: ``ord`` counts from 1 within the interview; ``epoch`` is the one that owns it;
                ``epochs`` (JSON) lists each with its begins; ``restarts``, ``silenceMs`` and ``loudestDiscardedDbfs``
                (JSON lists, per channel) are written when it ends, and ``position``, where its audio ended.
``progress``    one narrow row per *live* stream, written about once a second: its epoch and restart points.
``anchors``     position and UTC of arrival, per stream.
``segments``    one row per final, written once: the key, the columns that are asked for, the whole final as JSON, and
                ``handoff``, the sinks (JSON list) it is to be handed to; ``pending`` in rows older than version 4,
                which go to none.
``jobs``        one row per uploaded file, ``ord`` in the order they came; the job itself is JSON.
``handoffs``    one row per sink and thing that waits for it (pending) or that it refused for good (dead); what a sink
                has is in no row.  ``segment`` is the final's row, ``document`` (JSON) a completion or a deletion.
``leases``      which node relays an interview to a sink; ``until``, the number it raises.

The version is ``PRAGMA user_version``.  Each migration is *additive*, so that a program opens a database that is at
most one version newer than itself: the release before can be put back without touching the data.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from streamsrv.errors import SetupError

DATABASE_NAME = "streamsrv.db"
APPLICATION_ID = 0x73747276
"""Marks the file as ours; SQLite files of other programs are refused."""
CHECK_LIMIT_S = 5.0
"""The check of the whole file at open is cut off after this; a larger file is then checked only as far as it came."""
WAL_LIMIT_BYTES = 64 * 1024 * 1024
"""The write-ahead log is cut back to this after a checkpoint; it grows beyond only while a reader holds it."""
CACHE_KB = 512
"""Pages each connection keeps; the system has the file in memory anyway, and need not have it twice."""

_V1 = (
    """CREATE TABLE interviews (
        _id TEXT PRIMARY KEY NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('scheduled', 'live', 'completed', 'failed')),
        scheduledAt INTEGER, startedAt INTEGER, endedAt INTEGER)""",
    "CREATE INDEX interviews_by_status ON interviews (status, scheduledAt)",
    """CREATE TABLE streams (
        _id TEXT PRIMARY KEY NOT NULL,
        interview TEXT NOT NULL REFERENCES interviews (_id),
        ord INTEGER NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('live', 'ended')),
        tokenHash BLOB NOT NULL,
        options TEXT NOT NULL,
        engine TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        epochs TEXT NOT NULL,
        restarts TEXT NOT NULL,
        startedAt INTEGER NOT NULL, endedAt INTEGER,
        silenceMs TEXT NOT NULL DEFAULT '[]', loudestDiscardedDbfs TEXT NOT NULL DEFAULT '[]',
        UNIQUE (interview, ord))""",
    "CREATE INDEX streams_live ON streams (status) WHERE status = 'live'",
    """CREATE TABLE progress (
        stream TEXT PRIMARY KEY NOT NULL REFERENCES streams (_id),
        epoch INTEGER NOT NULL, restarts TEXT NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE anchors (
        stream TEXT NOT NULL REFERENCES streams (_id),
        position INTEGER NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (stream, position)) WITHOUT ROWID""",
    """CREATE TABLE segments (
        interview TEXT NOT NULL, stream TEXT NOT NULL REFERENCES streams (_id),
        epoch INTEGER NOT NULL, channel INTEGER NOT NULL, segment INTEGER NOT NULL,
        utterance INTEGER NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,
        handoff TEXT NOT NULL DEFAULT 'pending',
        document TEXT NOT NULL,
        PRIMARY KEY (interview, stream, epoch, channel, segment))""",
)
_V2 = (
    """CREATE TABLE jobs (
        ord INTEGER PRIMARY KEY AUTOINCREMENT,
        _id TEXT NOT NULL UNIQUE,
        interview TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
        document TEXT NOT NULL)""",
    "CREATE INDEX jobs_by_interview ON jobs (interview)",
    "CREATE INDEX jobs_by_state ON jobs (state, ord)",
)
_V3 = (
    "ALTER TABLE interviews ADD COLUMN deletedAt INTEGER",
    "CREATE INDEX interviews_by_time ON interviews (coalesce(startedAt, scheduledAt, 0), _id)",
    "CREATE INDEX interviews_over ON interviews (endedAt) WHERE status = 'completed'",
    "CREATE INDEX interviews_doomed ON interviews (deletedAt) WHERE deletedAt IS NOT NULL",
    # Its entries are in the order of storing, per stream; deleting a stream would read all segments without it.
    "CREATE INDEX segments_by_stream ON segments (stream)",
)
_V4 = (
    "ALTER TABLE interviews ADD COLUMN revision INTEGER NOT NULL DEFAULT 0",
    # Places are never used again: a late word about an old one must not mark another.
    """CREATE TABLE handoffs (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        sink TEXT NOT NULL, interview TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('final', 'completed', 'deleted')),
        state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'dead')),
        attempts INTEGER NOT NULL DEFAULT 0,
        storedAt INTEGER NOT NULL, parkedAt INTEGER,
        segment INTEGER, document TEXT, reason TEXT)""",
    "CREATE INDEX handoffs_by_sink ON handoffs (sink, state, interview, place)",
    "CREATE INDEX handoffs_by_interview ON handoffs (interview, kind)",
    "CREATE INDEX handoffs_dead ON handoffs (place) WHERE state = 'dead'",
    """CREATE TABLE leases (
        sink TEXT NOT NULL, interview TEXT NOT NULL,
        node TEXT NOT NULL, until INTEGER NOT NULL,
        PRIMARY KEY (sink, interview)) WITHOUT ROWID""",
)
_V5 = ("ALTER TABLE streams ADD COLUMN position INTEGER",)
MIGRATIONS: tuple[Sequence[str], ...] = (_V1, _V2, _V3, _V4, _V5)
"""Statements that lead from version n to n + 1; never changed once released, only added to."""


def connect(path: Path, *, busy_timeout_s: float, read_only: bool) -> sqlite3.Connection:
    """A connection in autocommit mode, for use by one thread at a time; the file must exist.

    One that is ``read_only`` cannot change the file, nor fold the log into it when it is closed last.

    Raises:
        sqlite3.Error: it cannot be opened, or is no database.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}",
        uri=True,
        timeout=busy_timeout_s,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KB}")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def create_folder(path: Path) -> None:
    """Make the data directory, with mode 0700, when it is missing; one that is there stays as it is.

    Raises:
        OSError: as the system says.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def create_file(path: Path) -> None:
    """Make an empty file when it is missing, its directory entry durable; only its owner may use it.

    SQLite gives its log files the mode of the database.

    Raises:
        OSError: as the system says.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def prepare(
    path: Path,
    *,
    busy_timeout_s: float,
    migrations: Sequence[Sequence[str]] = MIGRATIONS,
    tidy: Callable[[sqlite3.Connection], None] | None = None,
) -> None:
    """Check the file and bring it to the newest version; nothing is written to a file that fails a check.

    Args:
        tidy: run in a transaction when that is done; it can wait for a better day, so a full disk is no obstacle.

    Raises:
        SetupError: corrupt, another program's, or from the future; says what to do.
    """
    with _guarded(path, busy_timeout_s, read_only=True) as connection:
        version = _check(connection, path, len(migrations))
    with _guarded(path, busy_timeout_s, read_only=False) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        _migrate(connection, migrations, version)
        if tidy is not None:
            _tidy(connection, tidy)


def _tidy(connection: sqlite3.Connection, tidy: Callable[[sqlite3.Connection], None]) -> None:
    try:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            tidy(connection)
    except sqlite3.OperationalError:
        return


def fold(path: Path, *, busy_timeout_s: float) -> None:
    """Fold the log into the database, so that one file holds all; nothing happens when it is in use or full.

    What is not folded now is found in the log by the next who opens it.
    """
    try:
        connect(path, busy_timeout_s=busy_timeout_s, read_only=False).close()
    except sqlite3.Error:
        return


def check(path: Path, *, busy_timeout_s: float) -> None:
    """Check, without writing, that a reader understands the file.

    Raises:
        SetupError: missing, corrupt, another program's, of another version; says what to do.
    """
    if not path.is_file():
        raise SetupError(f"no transcripts in {path.parent}", hint="start the server once, or choose another data_dir")
    with _guarded(path, busy_timeout_s, read_only=True) as connection:
        if _check(connection, path, len(MIGRATIONS)) < len(MIGRATIONS):
            raise SetupError(f"{path} is of an older version", hint="start the server once: it migrates the database")


@contextmanager
def _guarded(path: Path, busy_timeout_s: float, *, read_only: bool) -> Iterator[sqlite3.Connection]:
    """A connection whose errors become ``SetupError``; closed at the end."""
    _refuse_emptied(path)
    try:
        with closing(connect(path, busy_timeout_s=busy_timeout_s, read_only=read_only)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise _unusable(path, error) from error


def _refuse_emptied(path: Path) -> None:
    """SQLite would delete the log of an empty database; here the log may be all that is left."""
    log = path.with_name(path.name + "-wal")
    if path.stat().st_size == 0 and log.exists() and log.stat().st_size > 0:
        raise _corrupt(path, "it is empty, but its write-ahead log is not")


def _check(connection: sqlite3.Connection, path: Path, newest: int) -> int:
    """The version of a sound database of ours; 0 for an empty file."""
    version = _number(connection, "PRAGMA user_version")
    if _number(connection, "SELECT count(*) FROM sqlite_master") == 0 and version == 0:
        return 0
    if _number(connection, "PRAGMA application_id") != APPLICATION_ID:
        raise SetupError(f"{path} belongs to another program", hint="choose another data_dir")
    if version > newest + 1:
        raise SetupError(
            f"{path} has version {version}; this program understands up to {newest + 1}",
            hint="install the release that wrote it or a later one; nothing was changed",
        )
    if (finding := _quick_check(connection)) != "ok":
        raise _corrupt(path, finding)
    return version


def _number(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


def _quick_check(connection: sqlite3.Connection) -> str:
    """``ok``, or the first finding."""
    end = time.monotonic() + CHECK_LIMIT_S
    connection.set_progress_handler(lambda: int(time.monotonic() > end), 100_000)
    try:
        return str(connection.execute("PRAGMA quick_check(1)").fetchone()[0]).splitlines()[0]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return "ok"
        raise
    finally:
        connection.set_progress_handler(None, 0)


def _migrate(connection: sqlite3.Connection, migrations: Sequence[Sequence[str]], version: int) -> None:
    """All missing steps in one transaction: an interrupted migration leaves the old version."""
    if version >= len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in migrations[version:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _unusable(path: Path, error: sqlite3.Error) -> SetupError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return _corrupt(path, str(error))
    return SetupError(f"cannot open {path}: {error}", hint="check permissions and free space of the data directory")


def _corrupt(path: Path, finding: str) -> SetupError:
    return SetupError(
        f"{path} is damaged: {finding}",
        hint="nothing was changed: restore a backup, or move the files away to begin anew",
    )
