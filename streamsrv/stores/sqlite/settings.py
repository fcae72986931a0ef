"""What an operator may choose for the SQLite store."""

from __future__ import annotations

from typing import Annotated

import msgspec


class SqliteSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where transcripts are kept, and how long and how much may wait for the disk."""

    data_dir: Annotated[
        str,
        msgspec.Meta(min_length=1, description="Directory of database and lock; made (mode 0700) when missing."),
    ] = "data"
    max_waiting_writes: Annotated[
        int,
        msgspec.Meta(ge=1, le=1_000_000, description="Writes that may wait for the disk; more are refused, retryable."),
    ] = 10_000
    busy_timeout_s: Annotated[
        float,
        msgspec.Meta(ge=0.0, le=60.0, description="Seconds to wait while another program holds the database's lock."),
    ] = 5.0
