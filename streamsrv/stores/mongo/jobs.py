"""Jobs.  Each belongs to the node that has its file."""

from __future__ import annotations

from typing import TypeAlias

from pymongo.errors import DuplicateKeyError

from streamsrv.errors import NotFound
from streamsrv.stores.base import OPEN_JOBS, Job
from streamsrv.stores.mongo import documents, places
from streamsrv.stores.mongo.documents import SCHEMA, Doc, Rooms

MAX_ENDED = 10_000
"""Jobs kept after their end, of all nodes; older ones are forgotten when another ends, their transcripts are not."""
OPEN: Doc = {"$in": sorted(OPEN_JOBS)}
_OVER: Doc = {"$nin": sorted(OPEN_JOBS)}


MAX_KNOWN = 10_000
"""Jobs remembered to be recorded; one that is forgotten and deleted by another node would be recorded again."""
Known: TypeAlias = dict[str, None]
"""Names of jobs this process recorded or found, oldest first."""


async def keep(rooms: Rooms, job: Job, node: str, known: Known) -> None:
    """Record it, or what is new of it; old ended ones make room.

    Raises:
        NotFound: it is known, and gone.
    """
    fields = documents.job_to(job)
    if not (await rooms.jobs.update_one({"_id": job.id}, {"$set": fields})).matched_count:
        if job.id in known:
            raise NotFound("the job was deleted with its interview")
        new = {"_id": job.id, "ord": await places.take(rooms), "node": node, "schema": SCHEMA}
        try:
            await rooms.jobs.insert_one(new | fields)
        except DuplicateKeyError:
            await rooms.jobs.update_one({"_id": job.id}, {"$set": fields})
    _remember(known, job.id)
    if job.state not in OPEN_JOBS:
        oldest = await rooms.jobs.find_one({"state": _OVER}, {"ord": 1}, sort=[("ord", -1)], skip=MAX_ENDED)
        if oldest is not None:
            await rooms.jobs.delete_many({"state": _OVER, "ord": {"$lte": oldest["ord"]}})


async def read(rooms: Rooms, job: str) -> Job | None:
    doc = await rooms.jobs.find_one({"_id": job})
    return None if doc is None else documents.job_from(doc)


async def unfinished(rooms: Rooms, node: str, known: Known) -> tuple[Job, ...]:
    """This node's, by order."""
    found = rooms.jobs.find({"state": OPEN, "node": node}).sort("ord")
    left = tuple([documents.job_from(doc) async for doc in found])
    for job in left:
        _remember(known, job.id)
    return left


def _remember(known: Known, job: str) -> None:
    known[job] = None
    while len(known) > MAX_KNOWN:
        del known[next(iter(known))]
