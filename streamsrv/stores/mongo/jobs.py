"""Jobs.  Each belongs to the node that has its file."""

from __future__ import annotations

from pymongo.errors import DuplicateKeyError

from streamsrv.stores.base import OPEN_JOBS, Job
from streamsrv.stores.mongo import documents, places
from streamsrv.stores.mongo.documents import SCHEMA, Doc, Rooms

MAX_ENDED = 10_000
"""Jobs kept after their end, of all nodes; older ones are forgotten when another ends, their transcripts are not."""
OPEN: Doc = {"$in": sorted(OPEN_JOBS)}
_OVER: Doc = {"$nin": sorted(OPEN_JOBS)}


async def keep(rooms: Rooms, job: Job, node: str) -> None:
    """Record it, or what is new of it; old ended ones make room."""
    fields = documents.job_to(job)
    if not (await rooms.jobs.update_one({"_id": job.id}, {"$set": fields})).matched_count:
        new = {"_id": job.id, "ord": await places.take(rooms), "node": node, "schema": SCHEMA}
        try:
            await rooms.jobs.insert_one(new | fields)
        except DuplicateKeyError:
            await rooms.jobs.update_one({"_id": job.id}, {"$set": fields})
    if job.state not in OPEN_JOBS:
        oldest = await rooms.jobs.find_one({"state": _OVER}, {"ord": 1}, sort=[("ord", -1)], skip=MAX_ENDED)
        if oldest is not None:
            await rooms.jobs.delete_many({"state": _OVER, "ord": {"$lte": oldest["ord"]}})


async def read(rooms: Rooms, job: str) -> Job | None:
    doc = await rooms.jobs.find_one({"_id": job})
    return None if doc is None else documents.job_from(doc)


async def unfinished(rooms: Rooms, node: str) -> tuple[Job, ...]:
    """This node's, by order."""
    found = rooms.jobs.find({"state": OPEN, "node": node}).sort("ord")
    return tuple([documents.job_from(doc) async for doc in found])
