"""Numbers that only grow, for all nodes together: the order in which things were stored."""

from __future__ import annotations

from typing import Final

from pymongo import ReturnDocument

from streamsrv.errors import StoreUnavailable
from streamsrv.stores.mongo.documents import Doc, Rooms

COUNTER: Final[Doc] = {"_id": "place"}
"""Finds its document."""


async def prepare(rooms: Rooms) -> None:
    """Make the counter when it is missing."""
    await rooms.meta.update_one(COUNTER, {"$setOnInsert": {"last": 0}}, upsert=True)


async def take(rooms: Rooms, count: int = 1, change: Doc | None = None) -> int:
    """The first of so many new numbers.  Some may never be used; none is given twice.

    Args:
        change: made to the counter's document by the same update.
    """
    found = await rooms.meta.find_one_and_update(
        COUNTER,
        {"$inc": {"last": count}, **(change or {})},
        projection={"last": 1},
        return_document=ReturnDocument.AFTER,
    )
    if found is None:
        raise StoreUnavailable("the counter of the database is gone", hint="restore it, or start the server again")
    return int(found["last"]) - count + 1
