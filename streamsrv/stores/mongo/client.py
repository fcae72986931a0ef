"""The connection to the server, and what must be there before anything is kept."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable
from typing import Any, Final

from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo import ASCENDING, DESCENDING, AsyncMongoClient, IndexModel
from pymongo.errors import ConnectionFailure, PyMongoError
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from streamsrv import telemetry
from streamsrv.errors import SetupError
from streamsrv.stores.mongo import documents, failures, places
from streamsrv.stores.mongo.documents import SCHEMA, Doc, Rooms
from streamsrv.stores.mongo.settings import MongoSettings

SELECTION_S: Final = 2.0
"""How long a request waits for a server that takes writes, within its time; an election is over sooner, mostly."""
PAUSE_S: Final = 0.5
"""Between two attempts to reach the server at the start."""

log = telemetry.logger("mongo")


def _index(*keys: str, unique: bool = False) -> IndexModel:
    """An index; a minus before a name turns its order."""
    fields = [(key.lstrip("-"), DESCENDING if key.startswith("-") else ASCENDING) for key in keys]
    return IndexModel(fields, unique=unique)


INDEXES: Final[dict[str, tuple[IndexModel, ...]]] = {
    "interviews": (
        _index("status", "scheduledAt"),
        _index("-at", "-_id"),
        _index("status", "-at", "-_id"),
        _index("status", "endedAt"),
        _index("deletedAt"),
        _index("handoff.pending", "_id"),
        _index("handoff.dead"),
    ),
    "streams": (_index("birth", "order", unique=True), _index("status", "interview", "order"), _index("interview")),
    "segments": (
        _index("interview", "place"),
        _index("stream", "channel", "segment"),
        _index("handoff.pending", "interview", "handoff.place"),
        _index("handoff.pending", "handoff.place"),
        _index("handoff.dead", "handoff.place"),
    ),
    "jobs": (_index("interview"), _index("state", "ord")),
    "deletions": (_index("handoff.pending", "interview"), _index("interview")),
    "leases": (_index("until"),),
}


def connect(settings: MongoSettings) -> AsyncMongoClient[Doc]:
    """A client, not connected yet.

    Raises:
        SetupError: the address is none.
    """
    options: dict[str, Any] = {
        "appname": "streamsrv",
        "maxPoolSize": settings.max_connections,
        "timeoutMS": round(settings.timeout_s * 1000),
        "connectTimeoutMS": round(min(settings.timeout_s, SELECTION_S) * 1000),
        "serverSelectionTimeoutMS": round(min(settings.timeout_s, SELECTION_S) * 1000),
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # an option the driver does not take
            return AsyncMongoClient(settings.url, **options)
    except (PyMongoError, ValueError, TypeError, UserWarning) as error:
        raise SetupError(
            f"mongo.url is no address of a MongoDB server ({type(error).__name__})",
            hint="it is mongodb://USER:PASSWORD@HOST:PORT/; an @ in the password is %40; options are pymongo's",
        ) from None


def rooms_of(client: AsyncMongoClient[Doc], settings: MongoSettings) -> Rooms:
    """The collections, with what we ask of every request: the primary answers, a majority has each write on disk.

    What the address says about these does not count: nothing would be durable by it.
    """
    codec: CodecOptions[Doc] = CodecOptions(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_MS)
    database = client.get_database(settings.database, codec, ReadPreference.PRIMARY, WriteConcern(w="majority", j=True))
    return documents.rooms(database)


async def patiently(settings: MongoSettings, attempt: Callable[[], Awaitable[None]]) -> None:
    """Try until it works, for as long as a server may take to come, or to come back in the middle.

    Raises:
        SetupError: it does not come, refuses us, or holds what this version does not understand.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + settings.start_within_s
    told = False
    while True:
        try:
            return await attempt()
        except PyMongoError as error:
            failures.heed_cancellation()
            if not isinstance(error, ConnectionFailure) or failures.hopeless(error) or loop.time() >= end:
                raise failures.unusable(error, settings.start_within_s) from error
            if not told:
                log.warning("mongo.waits", error=type(error).__name__, within_s=settings.start_within_s)
                told = True
        await asyncio.sleep(PAUSE_S)


async def prepare(rooms: Rooms) -> None:
    """Check the version, make what is missing; may be done again.

    Raises:
        SetupError: it holds what this version does not understand.
        PyMongoError: something failed.
    """
    await _check(rooms)
    for name, indexes in INDEXES.items():
        await getattr(rooms, name).create_indexes(list(indexes))
    await places.prepare(rooms)


async def _check(rooms: Rooms) -> None:
    """See whether this version understands the database, and say that it was here.

    A database is used by the release that wrote it, the one before, and the one after, also at the same time.

    Raises:
        SetupError: it is from the future.
    """
    await rooms.meta.update_one({"_id": "schema"}, {"$max": {"version": SCHEMA}}, upsert=True)
    found = await rooms.meta.find_one({"_id": "schema"})
    version = SCHEMA if found is None else int(found["version"])
    if version > SCHEMA + 1:
        raise SetupError(
            f"the MongoDB database has version {version}; this program understands up to {SCHEMA + 1}",
            hint="install the release that wrote it or a later one; nothing was changed",
        )
