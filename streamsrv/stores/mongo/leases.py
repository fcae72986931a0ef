"""Which node relays what: one document per sink and interview, while somebody does."""

from __future__ import annotations

from pymongo.errors import DuplicateKeyError

from streamsrv.stores.mongo.documents import Rooms, date


def _id(sink: str, interview: str) -> str:
    return f"{sink}/{interview}"


async def take(rooms: Rooms, sink: str, interview: str, *, node: str, now_ms: int, until_ms: int) -> bool:
    """By one atomic update; where it does not match, inserting finds the other's document."""
    free = {"$or": [{"node": node}, {"until": {"$lte": date(now_ms)}}]}
    try:
        await rooms.leases.update_one(
            {"_id": _id(sink, interview), **free}, {"$set": {"node": node, "until": date(until_ms)}}, upsert=True
        )
    except DuplicateKeyError:
        return False
    return True


async def release(rooms: Rooms, sink: str, interview: str, *, node: str) -> None:
    await rooms.leases.delete_one({"_id": _id(sink, interview), "node": node})


async def tidy(rooms: Rooms, *, before_ms: int) -> None:
    """Forget those that ran out long ago: their node is gone, and nobody wanted them since."""
    await rooms.leases.delete_many({"until": {"$lt": date(before_ms)}})
