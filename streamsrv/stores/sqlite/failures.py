"""What SQLite's own errors mean to a caller."""

from __future__ import annotations

import sqlite3

from streamsrv.errors import StoreUnavailable

RETRY_AFTER_S = 1.0
_ENVIRONMENT = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)


def of_environment(error: BaseException) -> bool:
    """Whether the disk, the file or its lock failed, not the statement."""
    return isinstance(error, sqlite3.Error) and _primary(error) in _ENVIRONMENT


def spares_connection(error: BaseException) -> bool:
    """Whether the connection can be used again as it is: a full disk or a lock leave nothing broken behind."""
    return isinstance(error, sqlite3.Error) and _primary(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY)


def unavailable(error: BaseException) -> StoreUnavailable:
    """The same for everybody who waits; messages of SQLite name no data."""
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    full = isinstance(error, sqlite3.Error) and _primary(error) == sqlite3.SQLITE_FULL
    return StoreUnavailable(
        f"the database cannot be used at the moment ({name})",
        hint="make room on the disk" if full else "look at the disk and the files of the data directory",
        retry_after_s=RETRY_AFTER_S,
    )


def _primary(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
