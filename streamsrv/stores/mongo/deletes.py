"""Deleting an interview: it is doomed by one update, then taken away step by step.  Each step can be repeated, and what
a crash interrupts is found by ``reads.expired``."""

from __future__ import annotations

import secrets

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from streamsrv.stores.mongo import documents, handoffs, places
from streamsrv.stores.mongo.documents import SCHEMA, Doc, Rooms, date
from streamsrv.stores.mongo.handoffs import Order

BITE = 500
"""Finals deleted by one request, so that none takes long."""


async def delete(rooms: Rooms, interview: str, *, now_ms: int, order: Order | None) -> bool:
    """Doom it, then take it away.

    Returns:
        False when there was nothing of it.
    """
    # A file that was never heard has a job, and no interview yet.
    jobs = (await rooms.jobs.delete_many({"interview": interview})).deleted_count
    doc = await _doom(rooms, interview, now_ms, order)
    if doc is None:
        return jobs > 0
    birth = {"birth": doc["birth"]}
    # No connection has this epoch: what a session still offers is refused as outdated.
    await rooms.streams.update_many(
        {**birth, "doomed": None}, {"$set": {"doomed": True, "status": "ended"}, "$inc": {"epoch": 1}}
    )
    streams = documents.names([one async for one in rooms.streams.find(birth, {"_id": 1}).sort("order")])
    if (state := doc.get("told")) is not None:
        await _tell(rooms, doc, streams, state)
    await _bite_away(rooms, streams)
    await rooms.streams.delete_many(birth)
    # What was on its way when its stream went.
    await _bite_away(rooms, streams)
    await rooms.interviews.delete_one({"_id": interview, "birth": doc["birth"], "deletedAt": {"$ne": None}})
    return doc["status"] != "beginning" or jobs > 0


async def _doom(rooms: Rooms, interview: str, now_ms: int, order: Order | None) -> Doc | None:
    """Make it vanish for readers, and note to whom that is to be told; the document, doomed."""
    change: Doc = {"$set": {"deletedAt": date(now_ms)}, "$unset": {"handoff": ""}}
    if order is not None:
        change["$set"]["told"] = handoffs.pending(order, await places.take(rooms))
    # One that somebody scheduled, and that never began.
    await rooms.interviews.update_one({"_id": interview, "birth": None}, {"$set": {"birth": secrets.token_hex(8)}})
    doomed = await rooms.interviews.find_one_and_update(
        {"_id": interview, "deletedAt": None}, change, return_document=ReturnDocument.AFTER
    )
    return doomed or await rooms.interviews.find_one({"_id": interview})


async def _tell(rooms: Rooms, doc: Doc, streams: list[str], state: Doc) -> None:
    """Leave word for the sinks, once: it outlives the interview."""
    word = {
        "_id": doc["birth"],
        "interview": doc["_id"],
        "streams": streams,
        "deletedAt": doc["deletedAt"],
        "handoff": state,
        "schema": SCHEMA,
    }
    try:
        await rooms.deletions.insert_one(word)
    except DuplicateKeyError:
        pass
    await rooms.interviews.update_one({"_id": doc["_id"], "birth": doc["birth"]}, {"$unset": {"told": ""}})


async def _bite_away(rooms: Rooms, streams: list[str]) -> None:
    while True:
        found = rooms.segments.find({"stream": {"$in": streams}}, {"_id": 1}).limit(BITE)
        bite = documents.names([doc async for doc in found])
        if bite:
            await rooms.segments.delete_many({"_id": {"$in": bite}})
        if len(bite) < BITE:
            return
