"""Which node relays what: one document per sink and interview, while somebody does.  ``until`` is the number its holder
raises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from streamsrv.stores.handoff import Lease
from streamsrv.stores.mongo import failures
from streamsrv.stores.mongo.documents import Rooms, date, ms


def _id(sink: str, interview: str) -> str:
    return f"{sink}/{interview}"


class Wish(NamedTuple):
    """A lease one node would have."""

    sink: str
    interview: str
    wanted: Lease
    over: Lease | None
    """What it may be taken from."""


async def take(rooms: Rooms, wishes: Sequence[Wish]) -> list[Lease | None]:
    """By one atomic update each, all in one trip; where it does not match, inserting finds the other's document."""
    answers: list[Lease | None] = [None] * len(wishes)
    left = list(range(len(wishes)))
    while left:
        refused = await _try([_update(wishes[number]) for number in left], rooms)
        left = [left[number] for number in refused]
        ids = [_id(wishes[number].sink, wishes[number].interview) for number in left]
        others = {doc["_id"]: doc async for doc in rooms.leases.find({"_id": {"$in": ids}})} if ids else {}
        for number, name in zip(left, ids, strict=True):
            if (doc := others.get(name)) is not None:
                answers[number] = Lease(node=doc["node"], until_ms=ms(doc["until"]) or 0)
        # The others were given back in between.
        left = [number for number, name in zip(left, ids, strict=True) if name not in others]
    return answers


def _update(wish: Wish) -> UpdateOne:
    wanted, over = wish.wanted, wish.over or wish.wanted
    mine = {"$or": [{"node": wanted.node}, {"node": over.node, "until": date(over.until_ms)}]}
    change = {"$set": {"node": wanted.node, "until": date(wanted.until_ms)}}
    return UpdateOne({"_id": _id(wish.sink, wish.interview), **mine}, change, upsert=True)


async def _try(updates: Sequence[UpdateOne], rooms: Rooms) -> list[int]:
    """The numbers of those that others are in the way of."""
    try:
        await rooms.leases.bulk_write(updates, ordered=False)
    except BulkWriteError as error:
        return sorted(failures.duplicates(error))
    return []


class Return(NamedTuple):
    """A lease one node has, or had."""

    sink: str
    interview: str
    node: str


async def release(rooms: Rooms, returns: Sequence[Return]) -> None:
    for node in {one.node for one in returns}:
        ids = [_id(one.sink, one.interview) for one in returns if one.node == node]
        await rooms.leases.delete_many({"_id": {"$in": ids}, "node": node})


async def tidy(rooms: Rooms, *, node: str, before_ms: int) -> None:
    """Forget those of long ago, whose node is gone, and nobody wanted them since; and those of this node, which starts:
    its life before did not give them back."""
    await rooms.leases.delete_many({"$or": [{"node": node}, {"until": {"$lt": date(before_ms)}}]})
