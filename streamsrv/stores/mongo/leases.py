"""Which node relays what: one document per sink and interview, while somebody does.  ``until`` is the number its holder
raises."""

from __future__ import annotations

from pymongo.errors import DuplicateKeyError

from streamsrv.stores.handoff import Lease
from streamsrv.stores.mongo.documents import Rooms, date, ms


def _id(sink: str, interview: str) -> str:
    return f"{sink}/{interview}"


async def take(rooms: Rooms, sink: str, interview: str, wanted: Lease, *, over: Lease | None) -> Lease | None:
    """By one atomic update; where it does not match, inserting finds the other's document."""
    name = {"_id": _id(sink, interview)}
    over = over or wanted
    mine = {"$or": [{"node": wanted.node}, {"node": over.node, "until": date(over.until_ms)}]}
    while True:
        try:
            await rooms.leases.update_one(
                name | mine, {"$set": {"node": wanted.node, "until": date(wanted.until_ms)}}, upsert=True
            )
        except DuplicateKeyError:
            if (found := await rooms.leases.find_one(name)) is not None:
                return Lease(node=found["node"], until_ms=ms(found["until"]) or 0)
            continue  # it was given back in between
        return None


async def release(rooms: Rooms, sink: str, interview: str, *, node: str) -> None:
    await rooms.leases.delete_one({"_id": _id(sink, interview), "node": node})


async def tidy(rooms: Rooms, *, node: str, before_ms: int) -> None:
    """Forget those of long ago, whose node is gone, and nobody wanted them since; and those of this node, which starts:
    its life before did not give them back."""
    await rooms.leases.delete_many({"$or": [{"node": node}, {"until": {"$lt": date(before_ms)}}]})
