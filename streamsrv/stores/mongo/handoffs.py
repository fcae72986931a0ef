"""What waits for the sinks.

Its state is ``handoff`` in the document of what is handed on, written with it: a final in ``segments``, a completion in
``interviews``, a deletion in ``deletions``.  ``handoff`` holds ``place`` and ``storedAt``; ``sinks``, their names in an
order that never changes; ``pending`` and ``dead``, the names of those that have not got it; ``trouble``, what each
refused, under the sink's number in ``sinks``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from streamsrv.stores import validity
from streamsrv.stores.base import StoredFinal, Stream
from streamsrv.stores.handoff import (
    Completion,
    DeadLetter,
    Deletion,
    Handoff,
    HandoffKind,
    Outgoing,
    SinkFigures,
    Waiting,
)
from streamsrv.stores.mongo import documents, reads
from streamsrv.stores.mongo.documents import Collection as Room
from streamsrv.stores.mongo.documents import Doc, Rooms, date, ms
from streamsrv.stores.mongo.writing import Writing

MAX_SINKS: Final = 16
"""Sinks at most: what a sink calls a place is the place times this, and the sink's number."""
MAX_WAITING: Final = 1_000
"""Handoffs read in one go; who wants more marks these and asks again."""
MAX_COUNTED: Final = 100_000
"""Where counting what is pending stops."""
MAX_KNOWN: Final = 10_000
"""Finals whose keys are remembered from reading them to marking them; the others are found by their places."""
LEAP: Final = 200
"""Documents looked at before a look for the next interview's name leaps over the rest of one."""


class Order(NamedTuple):
    """To whom what is stored is to be handed."""

    sinks: tuple[str, ...]
    now_ms: int


def pending(order: Order, place: int) -> Doc:
    """The state of what no sink has yet."""
    sinks = list(order.sinks)
    return {"place": place, "storedAt": date(order.now_ms), "sinks": sinks, "pending": sinks, "dead": []}


class _Room(NamedTuple):
    """A collection of things to be handed on."""

    kind: HandoffKind
    room: Room
    interview: str
    """Field that names the interview."""


def _rooms(rooms: Rooms) -> tuple[_Room, ...]:
    return (
        _Room("final", rooms.segments, "interview"),
        _Room("completed", rooms.interviews, "_id"),
        _Room("deleted", rooms.deletions, "interview"),
    )


# --- the relay's reads --------------------------------------------------------------------------------------------


async def due(rooms: Rooms, sink: str, *, after: str, limit: int) -> tuple[str, ...]:
    """By name, out of each collection."""
    found = await asyncio.gather(*(_due_in(room, sink, after, limit) for room in _rooms(rooms)))
    return tuple(sorted({name for names in found for name in names})[:limit])


async def _due_in(room: _Room, sink: str, after: str, limit: int) -> list[str]:
    """The first names in one collection; leaps from name to name through the index."""
    names: list[str] = []
    while len(names) < limit:
        query = {"handoff.pending": sink, room.interview: {"$gt": after}}
        page = room.room.find(query, {room.interview: 1}).sort(room.interview, 1).limit(LEAP)
        found = [str(doc[room.interview]) async for doc in page]
        names += sorted(set(found))
        if len(found) < LEAP:
            break
        after = found[-1]
    return names


Known: TypeAlias = dict[tuple[str, int], str]
"""Keys of finals, by interview and place."""


class Wanted(NamedTuple):
    """What a relay asks for."""

    sink: str
    interview: str
    limit: int


async def waiting(rooms: Rooms, writing: Writing, wanted: Wanted, *, known: Known) -> Waiting:
    """Out of each collection, merged by place; a doomed interview's finals are left out.

    What lies behind a batch that does not come to light is left for later, so that the order is that of storing.

    Args:
        known: takes the keys of the finals.
    """
    sink, interview, limit = wanted
    limit = min(limit, MAX_WAITING)
    finals, completed, deletions = await _pending(rooms, writing, wanted)
    if len(known) > MAX_KNOWN:
        known.clear()
    known.update({(interview, doc["handoff"]["place"]): doc["_id"] for doc in finals})
    streams = await reads.streams(rooms, interview) if finals else ()
    seen = {stream.id: validity.limits(stream.epochs) for stream in streams}
    handoffs = [_final(doc, sink, seen[doc["stream"]]) for doc in finals if doc["stream"] in seen]
    handoffs += [_handoff(doc, sink, _completion(doc)) for doc in completed if documents.is_seen(doc)]
    handoffs += [_handoff(doc, sink, _deletion(doc)) for doc in deletions]
    handoffs.sort(key=lambda one: one.place)
    return Waiting(streams=_concerned(streams, handoffs), handoffs=tuple(handoffs[:limit]))


async def _pending(rooms: Rooms, writing: Writing, wanted: Wanted) -> list[list[Doc]]:
    """Per collection, by place; none behind a batch under way."""
    view = await writing.view(wanted.interview)
    await writing.settle(view)
    queries = (
        room.room.find({room.interview: wanted.interview, "handoff.pending": wanted.sink})
        .sort("handoff.place", 1)
        .limit(min(wanted.limit, MAX_WAITING))
        .to_list()
        for room in _rooms(rooms)
    )
    found = await asyncio.gather(*queries)
    upto, highest = view.upto, max((doc["handoff"]["place"] for docs in found for doc in docs), default=0)
    if highest > upto and not view.open and (await writing.view(wanted.interview)).last < highest:
        upto = highest  # the counter is from an older backup than the finals
    return [[doc for doc in docs if doc["handoff"]["place"] <= upto] for docs in found]


def _concerned(streams: tuple[Stream, ...], handoffs: list[Handoff]) -> tuple[Stream, ...]:
    wanted = {one.what.stream for one in handoffs if isinstance(one.what, StoredFinal)}
    return tuple(stream for stream in streams if stream.id in wanted)


def _final(doc: Doc, sink: str, bounds: validity.Limits) -> Handoff:
    what = StoredFinal(stream=doc["stream"], epoch=doc["epoch"], final=documents.final_from(doc))
    superseded = not validity.counts(bounds, doc["epoch"], what.final.channel, what.final.start)
    return _handoff(doc, sink, what, superseded=superseded)


def _completion(doc: Doc) -> Completion:
    return Completion(revision=doc["revision"], started_ms=ms(doc.get("startedAt")), ended_ms=ms(doc["endedAt"]) or 0)


def _deletion(doc: Doc) -> Deletion:
    return Deletion(streams=tuple(doc["streams"]), deleted_ms=ms(doc["deletedAt"]) or 0)


def _handoff(doc: Doc, sink: str, what: Outgoing, *, superseded: bool = False) -> Handoff:
    state, number = doc["handoff"], _number(doc, sink)
    trouble = state.get("trouble", {}).get(str(number), {})
    return Handoff(
        place=state["place"] * MAX_SINKS + number,
        stored_ms=ms(state["storedAt"]) or 0,
        attempts=trouble.get("attempts", 0),
        what=what,
        superseded=superseded,
    )


def _number(doc: Mapping[str, Any], sink: str) -> int:
    return int(doc["handoff"]["sinks"].index(sink))


# --- the relay's words --------------------------------------------------------------------------------------------


async def handed(rooms: Rooms, sink: str, interview: str, given: Collection[int], *, known: Known) -> None:
    """Only what this sink calls by these places, and of this interview, is touched."""
    change = {"$pull": {"handoff.pending": sink}}
    for number in sorted({place % MAX_SINKS for place in given}):
        wanted = [place // MAX_SINKS for place in given if place % MAX_SINKS == number]
        query = {f"handoff.sinks.{number}": sink, "handoff.pending": sink}
        keys = [key for place in wanted if (key := known.pop((interview, place), None)) is not None]
        if keys:
            await rooms.segments.update_many({"interview": interview, **query, "_id": {"$in": keys}}, change)
        if len(keys) == len(wanted):
            continue
        for room in _rooms(rooms):
            await room.room.update_many({room.interview: interview, **query, "handoff.place": {"$in": wanted}}, change)
        await rooms.deletions.delete_many({"interview": interview, "handoff.pending": [], "handoff.dead": []})


class Refusal(NamedTuple):
    """One thing that one sink will not take."""

    sink: str
    interview: str
    place: int
    reason: str
    dead: bool
    now_ms: int


async def refused(rooms: Rooms, refusal: Refusal) -> None:
    place, number = divmod(refusal.place, MAX_SINKS)
    trouble = f"handoff.trouble.{number}"
    change: Doc = {
        "$inc": {f"{trouble}.attempts": 1},
        "$set": {f"{trouble}.reason": refusal.reason, f"{trouble}.parkedAt": date(refusal.now_ms)},
    }
    if refusal.dead:
        change |= {"$pull": {"handoff.pending": refusal.sink}, "$push": {"handoff.dead": refusal.sink}}
    for room in _rooms(rooms):
        query = {room.interview: refusal.interview, "handoff.place": place, f"handoff.sinks.{number}": refusal.sink}
        await room.room.update_one({**query, "handoff.pending": refusal.sink}, change)


# --- what operators ask -------------------------------------------------------------------------------------------


async def figures(rooms: Rooms) -> tuple[SinkFigures, ...]:
    names: set[str] = set()
    for room in _rooms(rooms):
        for field in ("handoff.pending", "handoff.dead"):
            names.update(await room.room.distinct(field))
    found = [await _figures(rooms, name) for name in sorted(names)]
    return tuple(one for one in found if one.pending or one.dead)


async def _figures(rooms: Rooms, sink: str) -> SinkFigures:
    counted = dead = 0
    oldest: list[tuple[int, int | None]] = []
    for room in _rooms(rooms):
        counted += await room.room.count_documents({"handoff.pending": sink}, limit=MAX_COUNTED)
        dead += await room.room.count_documents({"handoff.dead": sink}, limit=MAX_COUNTED)
        first = await room.room.find_one({"handoff.pending": sink}, {"handoff": 1}, sort=[("handoff.place", 1)])
        if first is not None:
            oldest.append((first["handoff"]["place"], ms(first["handoff"]["storedAt"])))
    return SinkFigures(sink=sink, pending=counted, dead=dead, oldest_ms=min(oldest)[1] if oldest else None)


async def dead_letters(rooms: Rooms, *, sink: str | None, after: int, limit: int) -> tuple[DeadLetter, ...]:
    query: Doc = {"handoff.dead": {"$exists": True, "$ne": []} if sink is None else sink}
    letters: list[DeadLetter] = []
    for room in _rooms(rooms):
        # A place that one sink was told of may be another's too.
        found = room.room.find({**query, "handoff.place": {"$gte": after // MAX_SINKS}})
        for doc in [doc async for doc in found.sort("handoff.place", 1).limit(limit + 1)]:
            letters += [_letter(doc, room, name) for name in doc["handoff"]["dead"] if sink in (None, name)]
    letters.sort(key=lambda letter: letter.place)
    return tuple([letter for letter in letters if letter.place > after][:limit])


def _letter(doc: Doc, room: _Room, sink: str) -> DeadLetter:
    state, number = doc["handoff"], _number(doc, sink)
    trouble = state["trouble"][str(number)]
    final = room.kind == "final"
    return DeadLetter(
        sink=sink,
        interview=doc[room.interview],
        place=state["place"] * MAX_SINKS + number,
        kind=room.kind,
        stream=doc["stream"] if final else None,
        channel=doc["channel"] if final else None,
        segment=doc["segment"] if final else None,
        revision=doc["revision"] if room.kind == "completed" else None,
        attempts=trouble["attempts"],
        reason=trouble["reason"],
        parked_ms=ms(trouble["parkedAt"]) or 0,
    )


async def retry(rooms: Rooms, *, sink: str | None, interview: str | None) -> int:
    """One document after the other; those that somebody else makes pending meanwhile are not counted."""
    count = 0
    for room in _rooms(rooms):
        query: Doc = {"handoff.dead": {"$exists": True, "$ne": []} if sink is None else sink}
        if interview is not None:
            query[room.interview] = interview
        async for doc in room.room.find(query, {"handoff": 1}):
            for name in [name for name in doc["handoff"]["dead"] if sink in (None, name)]:
                change = {
                    "$pull": {"handoff.dead": name},
                    "$push": {"handoff.pending": name},
                    "$unset": {f"handoff.trouble.{_number(doc, name)}": ""},
                }
                done = await room.room.update_one({"_id": doc["_id"], "handoff.dead": name}, change)
                count += done.modified_count
    return count
