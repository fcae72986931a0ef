"""What an operator may choose for the MongoDB store."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class MongoSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Transcripts in MongoDB instead of SQLite: needed as soon as there are several nodes."""

    url: Annotated[
        Annotated[str, Meta(pattern=r"^mongodb(\+srv)?://\S+$")] | None,
        Meta(
            description="Address of the MongoDB server, mongodb://USER:PASSWORD@HOST/; unset: SQLite.",
            extra={"secret": True},
        ),
    ] = None
    database: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9_-]{1,63}$", description="Database whose collections are used.")
    ] = "interview_worker"
    timeout_s: Annotated[
        float,
        Meta(ge=0.1, le=60.0, description="Seconds a request may take; then it is tried again, by the same rule."),
    ] = 5.0
    start_within_s: Annotated[
        float, Meta(ge=0.0, le=3_600.0, description="Seconds the start waits for a MongoDB server that is away.")
    ] = 30.0
    max_connections: Annotated[
        int, Meta(ge=1, le=1_000, description="Connections to the MongoDB server at most, from this node.")
    ] = 16
    max_waiting_writes: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="Writes that may wait for MongoDB; more are refused, retryable."),
    ] = 10_000
    node_silent_s: Annotated[
        float,
        Meta(
            ge=1.0,
            le=3_600.0,
            description="Seconds without a sign of life after which another node's streams may be ended for it.",
        ),
    ] = 30.0
    node_lost_s: Annotated[
        float,
        Meta(
            ge=10.0,
            le=604_800.0,
            description="Seconds without a sign of life after which the uploads on another node's disk are given up.",
        ),
    ] = 3_600.0
