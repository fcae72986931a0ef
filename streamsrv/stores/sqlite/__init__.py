"""The store in one SQLite file: no service to run, durable by ``fsync``, cheap by group commit.

All of it is behind ``SqliteStore``; the tables are described in ``schema``.
"""

from __future__ import annotations

from streamsrv.stores.sqlite.settings import SqliteSettings
from streamsrv.stores.sqlite.store import SqliteStore

__all__ = ["SqliteSettings", "SqliteStore"]
