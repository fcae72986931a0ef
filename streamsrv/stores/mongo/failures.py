"""What the driver's errors mean to a caller.  Its own messages may name hosts and users; ours name kinds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from streamsrv.errors import SetupError, StoreUnavailable

RETRY_AFTER_S = 1.0
DUPLICATE: Final = 11_000
"""MongoDB's code for a key that is there already."""
_REFUSED: Final = frozenset({8_000, 13, 18})
"""Codes of a server that knows the user not, or lets it not do this; for good, unlike all else."""


@contextmanager
def translated() -> Iterator[None]:
    """The driver's errors as ours.

    Whether the server is away, has no primary, refuses or took too long: the call may be made again, and a write whose
    answer was lost is then found done.

    Raises:
        StoreUnavailable: in place of any of the driver's errors.
    """
    try:
        yield
    except PyMongoError as error:
        raise unavailable(error) from error


def heed_cancellation() -> None:
    """End the task if it was told to end: the driver may have taken that for a failure of the network.

    Raises:
        asyncio.CancelledError: it was.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def unavailable(error: PyMongoError) -> StoreUnavailable:
    code = getattr(error, "code", None)
    name = type(error).__name__ + (f", code {code}" if code is not None else "")
    return StoreUnavailable(
        f"MongoDB cannot be used at the moment ({name})",
        hint="look at the user's rights in MongoDB" if code in _REFUSED else "look at the MongoDB server",
        retry_after_s=RETRY_AFTER_S,
    )


def duplicates(error: BulkWriteError) -> set[int]:
    """The numbers of the writes that found their keys taken; the others of the bulk are done.

    Raises:
        BulkWriteError: something else failed as well.
    """
    details: Mapping[str, Any] = error.details or {}
    failed = details.get("writeErrors", ())
    if details.get("writeConcernErrors") or any(one.get("code") != DUPLICATE for one in failed):
        raise error
    return {one["index"] for one in failed}


def hopeless(error: PyMongoError) -> bool:
    """Whether waiting will not help: the address is wrong, or the server refuses us."""
    if isinstance(error, OperationFailure):
        return error.code in _REFUSED
    return isinstance(error, ConfigurationError) or not isinstance(error, ConnectionFailure)


def unusable(error: PyMongoError, within_s: float) -> SetupError:
    """Why the server cannot start, and what to do; never the address, which may hold a password."""
    if isinstance(error, OperationFailure) and error.code in _REFUSED:
        return SetupError(
            f"MongoDB refuses the user of mongo.url (code {error.code})",
            hint="check user, password and authSource; the user needs the role readWrite on mongo.database",
        )
    if isinstance(error, ServerSelectionTimeoutError):
        return SetupError(
            f"no MongoDB server that takes writes answered within {within_s:g} s",
            hint="start it, check host and port in mongo.url, or raise mongo.start_within_s",
        )
    return SetupError(
        f"MongoDB cannot be used ({type(error).__name__})",
        hint="mongo.url is mongodb://USER:PASSWORD@HOST:PORT/; look at the MongoDB server's log",
    )
