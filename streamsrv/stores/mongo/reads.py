"""Everything that only reads."""

from __future__ import annotations

from typing import NamedTuple

from streamsrv.stores import validity
from streamsrv.stores.base import (
    FinalName,
    Interview,
    InterviewStatus,
    ListedInterview,
    ListPlace,
    PlacedFinal,
    StoredFinal,
    Stream,
)
from streamsrv.stores.mongo import documents
from streamsrv.stores.mongo.documents import Doc, Rooms, date, ms
from streamsrv.stores.mongo.writing import Writing

MAX_PLACES = 500
"""Finals read in one go by who reads on; a caller that wants more asks again."""


async def _seen(rooms: Rooms, name: str) -> Doc | None:
    doc = await rooms.interviews.find_one({"_id": name})
    return doc if documents.is_seen(doc) else None


async def interview(rooms: Rooms, name: str) -> Interview | None:
    doc = await _seen(rooms, name)
    return None if doc is None else documents.interview_from(doc)


async def streams(rooms: Rooms, name: str) -> tuple[Stream, ...]:
    """By order; of the interview that has the name now."""
    found = await _seen(rooms, name)
    if found is None or "birth" not in found:
        return ()
    return tuple(
        [documents.stream_from(doc) async for doc in rooms.streams.find({"birth": found["birth"]}).sort("order")]
    )


async def _bounds(rooms: Rooms, name: str) -> dict[str, tuple[int, validity.Limits]]:
    """Per stream of the interview, its order and where its epochs no longer count."""
    return {stream.id: (stream.order, validity.limits(stream.epochs)) for stream in await streams(rooms, name)}


async def finals(rooms: Rooms, name: str) -> tuple[StoredFinal, ...]:
    """All valid finals of an interview, by stream order, channel, start."""
    bounds = await _bounds(rooms, name)
    found = [doc async for doc in rooms.segments.find({"interview": name}) if _valid(doc, bounds)]
    found.sort(key=lambda doc: (bounds[doc["stream"]][0], *(doc[x] for x in ("channel", "start", "epoch", "segment"))))
    return tuple(
        StoredFinal(stream=doc["stream"], epoch=doc["epoch"], final=documents.final_from(doc)) for doc in found
    )


def _valid(doc: Doc, bounds: dict[str, tuple[int, validity.Limits]]) -> bool:
    known = bounds.get(doc["stream"])
    return known is not None and validity.counts(known[1], doc["epoch"], doc["channel"], doc["start"])


async def place_of(rooms: Rooms, name: str, wanted: FinalName) -> int:
    bounds = await _bounds(rooms, name)
    found = rooms.segments.find(
        {"stream": wanted.stream, "channel": wanted.channel, "segment": wanted.segment, "interview": name},
        {"stream": 1, "epoch": 1, "channel": 1, "start": 1, "place": 1},
    )
    return max([doc["place"] async for doc in found if _valid(doc, bounds)], default=0)


async def finals_since(rooms: Rooms, writing: Writing, name: str, *, place: int, limit: int) -> tuple[PlacedFinal, ...]:
    """Valid finals stored after ``place``, in that order.

    Waits for batches under way, as long as there is nothing before them.
    """
    view = await writing.view(name)
    while True:
        await writing.settle(view)
        query = {"interview": name, "place": {"$gt": place}}
        page = [doc async for doc in rooms.segments.find(query).sort("place").limit(min(limit, MAX_PLACES))]
        if not page and not view.open:
            return ()
        reached = [doc for doc in page if doc["place"] <= view.upto]
        if not reached and not view.open:  # all these got their places since
            view = await writing.view(name)
            if page[-1]["place"] > view.last:  # or the counter is from an older backup than they are
                reached = page
        if reached:
            place = reached[-1]["place"]
            if found := await _valid_ones(rooms, name, reached):
                return found


async def _valid_ones(rooms: Rooms, name: str, page: list[Doc]) -> tuple[PlacedFinal, ...]:
    """Those that count.  Streams are read behind their finals: one that began meanwhile is then known."""
    bounds = await _bounds(rooms, name)
    return tuple(
        PlacedFinal(place=doc["place"], stream=doc["stream"], final=documents.final_from(doc))
        for doc in page
        if _valid(doc, bounds)
    )


class Wanted(NamedTuple):
    """Which interviews a list asks for."""

    status: InterviewStatus | None
    since_ms: int | None
    until_ms: int | None
    after: ListPlace | None
    limit: int


async def interviews(rooms: Rooms, wanted: Wanted) -> tuple[ListedInterview, ...]:
    """Newest first."""
    at: Doc = {"$gte": date(wanted.since_ms or 0)}
    if wanted.until_ms is not None:
        at["$lt"] = date(wanted.until_ms)
    status = list(documents.STATUSES) if wanted.status is None else [wanted.status]
    query: Doc = {"at": at, "deletedAt": None, "status": {"$in": status}}
    if wanted.after is not None:
        last = date(wanted.after.at_ms)
        query["$or"] = [{"at": {"$lt": last}}, {"at": last, "_id": {"$lt": wanted.after.id}}]
    page = rooms.interviews.find(query).sort([("at", -1), ("_id", -1)]).limit(wanted.limit)
    return tuple(
        [
            ListedInterview(
                interview=documents.interview_from(doc),
                at_ms=ms(doc["at"]) or 0,
                streams=await rooms.streams.count_documents({"birth": doc["birth"]}) if "birth" in doc else 0,
            )
            async for doc in page
        ]
    )


async def expired(rooms: Rooms, before_ms: int, limit: int) -> tuple[str, ...]:
    """As the contract says."""
    doomed = rooms.interviews.find({"deletedAt": {"$ne": None}}, {"_id": 1}).limit(limit)
    over = rooms.interviews.find(
        {"status": "completed", "endedAt": {"$lt": date(before_ms)}, "deletedAt": None}, {"_id": 1}
    )
    names = documents.names([doc async for doc in doomed])
    names += documents.names([doc async for doc in over.sort("endedAt").limit(limit)])
    if len(names) < limit:
        names += await _refused(rooms, before_ms)
    return tuple(names[:limit])


async def _refused(rooms: Rooms, before_ms: int) -> list[str]:
    """Names of which there are only jobs, all ended before; ended jobs are bounded (``jobs.MAX_ENDED``)."""
    found: set[str] = set(await rooms.jobs.distinct("interview", {"ended_ms": {"$lt": before_ms}}))
    if not found:
        return []
    named: Doc = {"$in": sorted(found)}
    later: Doc = {"interview": named, "$or": [{"ended_ms": None}, {"ended_ms": {"$gte": before_ms}}]}
    found -= set(await rooms.jobs.distinct("interview", later))
    known = rooms.interviews.find({"_id": named, "status": {"$ne": "beginning"}}, {"_id": 1})
    found -= set(documents.names([doc async for doc in known]))
    return sorted(found)
