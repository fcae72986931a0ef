"""Numbers that only grow, for all nodes together: the order in which things were stored."""

from __future__ import annotations

from pymongo import ReturnDocument

from streamsrv.errors import StoreUnavailable
from streamsrv.stores.mongo.documents import Rooms

_COUNTER = {"_id": "place"}


async def prepare(rooms: Rooms) -> None:
    """Make the counter when it is missing."""
    await rooms.meta.update_one(_COUNTER, {"$setOnInsert": {"last": 0}}, upsert=True)


async def take(rooms: Rooms, count: int = 1) -> int:
    """The first of so many new numbers.  Some may never be used; none is given twice."""
    found = await rooms.meta.find_one_and_update(
        _COUNTER, {"$inc": {"last": count}}, return_document=ReturnDocument.AFTER
    )
    if found is None:
        raise StoreUnavailable("the counter of the database is gone", hint="restore it, or start the server again")
    return int(found["last"]) - count + 1
