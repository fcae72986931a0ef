"""What waits for the sinks.

Its state is ``handoff`` in the document of what is handed on, written with it: a final in ``segments``, a completion in
``interviews``, a deletion in ``deletions``.  ``handoff`` holds ``place`` and ``storedAt``; ``sinks``, their names in an
order that never changes; ``pending`` and ``dead``, the names of those that have not got it; ``trouble``, what each
refused, under the sink's number in ``sinks``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from streamsrv.stores import validity
from streamsrv.stores.base import StoredFinal
from streamsrv.stores.handoff import Completion, DeadLetter, Deletion, Handoff, HandoffKind, Outgoing, SinkFigures
from streamsrv.stores.mongo import documents
from streamsrv.stores.mongo.documents import Collection, Doc, Rooms, date, ms

MAX_SINKS: Final = 16
"""Sinks at most: what a sink calls a place is the place times this, and the sink's number."""
MAX_COUNTED: Final = 100_000
"""Where counting what is pending stops."""
LEAP: Final = 1_000
"""Documents looked at before a look for the next interview's name leaps over the rest of one."""


class Order(NamedTuple):
    """To whom what is stored is to be handed."""

    sinks: tuple[str, ...]
    now_ms: int


def pending(order: Order, place: int) -> Doc:
    """The state of what no sink has yet."""
    sinks = list(order.sinks)
    return {"place": place, "storedAt": date(order.now_ms), "sinks": sinks, "pending": sinks, "dead": []}


class Shelf(NamedTuple):
    """A collection of things to be handed on."""

    kind: HandoffKind
    room: Collection
    interview: str
    """Field that names the interview."""


def shelves(rooms: Rooms) -> tuple[Shelf, ...]:
    return (
        Shelf("final", rooms.segments, "interview"),
        Shelf("completed", rooms.interviews, "_id"),
        Shelf("deleted", rooms.deletions, "interview"),
    )


# --- the relay's reads --------------------------------------------------------------------------------------------


async def due(rooms: Rooms, sink: str, *, after: str, limit: int) -> tuple[str, ...]:
    """By name, out of each collection."""
    found = await asyncio.gather(*(_due_in(shelf, sink, after, limit) for shelf in shelves(rooms)))
    return tuple(sorted({name for names in found for name in names})[:limit])


async def _due_in(shelf: Shelf, sink: str, after: str, limit: int) -> list[str]:
    """The first names in one collection; leaps from name to name through the index."""
    names: list[str] = []
    while len(names) < limit:
        query = {"handoff.pending": sink, shelf.interview: {"$gt": after}}
        page = shelf.room.find(query, {shelf.interview: 1}).sort(shelf.interview, 1).limit(LEAP).batch_size(LEAP)
        found = [str(doc[shelf.interview]) async for doc in page]
        names += sorted(set(found))
        if len(found) < LEAP:
            break
        after = found[-1]
    return names


# --- documents as handoffs ----------------------------------------------------------------------------------------


def final(doc: Doc, sink: str, bounds: validity.Limits) -> Handoff:
    what = StoredFinal(stream=doc["stream"], epoch=doc["epoch"], final=documents.final_from(doc))
    superseded = not validity.counts(bounds, doc["epoch"], what.final.channel, what.final.start)
    return _handoff(doc, sink, what, superseded=superseded)


def completion(doc: Doc, sink: str) -> Handoff:
    started_ms, ended_ms = ms(doc.get("startedAt")), ms(doc["endedAt"]) or 0
    return _handoff(doc, sink, Completion(revision=doc["revision"], started_ms=started_ms, ended_ms=ended_ms))


def deletion(doc: Doc, sink: str) -> Handoff:
    return _handoff(doc, sink, Deletion(streams=tuple(doc["streams"]), deleted_ms=ms(doc["deletedAt"]) or 0))


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


# --- refusals -----------------------------------------------------------------------------------------------------


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
    for shelf in shelves(rooms):
        query = {shelf.interview: refusal.interview, "handoff.place": place, f"handoff.sinks.{number}": refusal.sink}
        await shelf.room.update_one({**query, "handoff.pending": refusal.sink}, change)


# --- what operators ask -------------------------------------------------------------------------------------------


async def figures(rooms: Rooms) -> tuple[SinkFigures, ...]:
    names: set[str] = set()
    for shelf in shelves(rooms):
        for field in ("handoff.pending", "handoff.dead"):
            names.update(await shelf.room.distinct(field))
    found = [await _figures(rooms, name) for name in sorted(names)]
    return tuple(one for one in found if one.pending or one.dead)


async def _figures(rooms: Rooms, sink: str) -> SinkFigures:
    counted = dead = 0
    oldest: list[tuple[int, int | None]] = []
    for shelf in shelves(rooms):
        counted += await shelf.room.count_documents({"handoff.pending": sink}, limit=MAX_COUNTED)
        dead += await shelf.room.count_documents({"handoff.dead": sink}, limit=MAX_COUNTED)
        first = await shelf.room.find_one({"handoff.pending": sink}, {"handoff": 1}, sort=[("handoff.place", 1)])
        if first is not None:
            oldest.append((first["handoff"]["place"], ms(first["handoff"]["storedAt"])))
    return SinkFigures(sink=sink, pending=counted, dead=dead, oldest_ms=min(oldest)[1] if oldest else None)


async def dead_letters(rooms: Rooms, *, sink: str | None, after: int, limit: int) -> tuple[DeadLetter, ...]:
    query: Doc = {"handoff.dead": {"$exists": True, "$ne": []} if sink is None else sink}
    letters: list[DeadLetter] = []
    for shelf in shelves(rooms):
        # A place that one sink was told of may be another's too.
        found = shelf.room.find({**query, "handoff.place": {"$gte": after // MAX_SINKS}})
        for doc in [doc async for doc in found.sort("handoff.place", 1).limit(limit + 1)]:
            letters += [_letter(doc, shelf, name) for name in doc["handoff"]["dead"] if sink in (None, name)]
    letters.sort(key=lambda letter: letter.place)
    return tuple([letter for letter in letters if letter.place > after][:limit])


def _letter(doc: Doc, shelf: Shelf, sink: str) -> DeadLetter:
    state, number = doc["handoff"], _number(doc, sink)
    trouble = state["trouble"][str(number)]
    final = shelf.kind == "final"
    return DeadLetter(
        sink=sink,
        interview=doc[shelf.interview],
        place=state["place"] * MAX_SINKS + number,
        kind=shelf.kind,
        stream=doc["stream"] if final else None,
        channel=doc["channel"] if final else None,
        segment=doc["segment"] if final else None,
        revision=doc["revision"] if shelf.kind == "completed" else None,
        attempts=trouble["attempts"],
        reason=trouble["reason"],
        parked_ms=ms(trouble["parkedAt"]) or 0,
    )


async def retry(rooms: Rooms, *, sink: str | None, interview: str | None) -> int:
    """One document after the other; those that somebody else makes pending meanwhile are not counted."""
    count = 0
    for shelf in shelves(rooms):
        query: Doc = {"handoff.dead": {"$exists": True, "$ne": []} if sink is None else sink}
        if interview is not None:
            query[shelf.interview] = interview
        async for doc in shelf.room.find(query, {"handoff": 1}):
            for name in [name for name in doc["handoff"]["dead"] if sink in (None, name)]:
                change = {
                    "$pull": {"handoff.dead": name},
                    "$push": {"handoff.pending": name},
                    "$unset": {f"handoff.trouble.{_number(doc, name)}": ""},
                }
                done = await shelf.room.update_one({"_id": doc["_id"], "handoff.dead": name}, change)
                count += done.modified_count
    return count
