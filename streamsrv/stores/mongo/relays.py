"""What the relays of one node ask of MongoDB: what waits, what is handed on, who relays what.

Many turns ask at once, each for an interview of its own.  What they ask goes to the server together, so that a backlog
of many short interviews costs trips for each batch of them and not for each of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pymongo import UpdateMany

from streamsrv.stores import validity
from streamsrv.stores.handoff import HandoffKind, Lease, Waiting
from streamsrv.stores.mongo import documents, handoffs, leases
from streamsrv.stores.mongo.batches import Batches
from streamsrv.stores.mongo.documents import Doc, Rooms
from streamsrv.stores.mongo.handoffs import MAX_SINKS, Shelf
from streamsrv.stores.mongo.leases import Return, Wish
from streamsrv.stores.mongo.writing import View, Writing

MAX_WAITING: Final = 1_000
"""Handoffs read in one go; who wants more marks these and asks again."""
MAX_KNOWN: Final = 10_000
"""Handoffs of which it is remembered from reading them to marking them what they are; the others are looked for."""


class Wanted(NamedTuple):
    """What a turn asks for."""

    sink: str
    interview: str
    limit: int


class Done(NamedTuple):
    """What is done with, by the places a sink calls it."""

    sink: str
    interview: str
    places: tuple[int, ...]


class Known(NamedTuple):
    """What lies at a place of an interview."""

    kind: HandoffKind
    id: Any
    sinks: tuple[str, ...]
    """By number."""


class Found(NamedTuple):
    """What is pending of one interview for one sink, each by place."""

    finals: list[Doc]
    completed: list[Doc]
    deletions: list[Doc]
    streams: dict[str, Doc]
    """Those the finals are of, by id; a doomed interview has none."""

    def places(self) -> list[int]:
        return [doc["handoff"]["place"] for docs in (self.finals, self.completed, self.deletions) for doc in docs]


class Relays:
    """The relays' way to the server.

    Args:
        most: calls of one kind that may wait; more are refused with ``StoreUnavailable``.
    """

    def __init__(self, rooms: Rooms, writing: Writing, *, most: int) -> None:
        self._rooms = rooms
        self._writing = writing
        self._known: dict[tuple[str, int], Known] = {}
        self._reads: Batches[Wanted, Found] = Batches(self._read, most=most)
        self._marks: Batches[Done, None] = Batches(self._mark, most=most)
        self._leases: Batches[Wish, Lease | None] = Batches(self._take, most=most)
        self._returns: Batches[Return, None] = Batches(self._release, most=most)

    async def lease(self, wish: Wish) -> Lease | None:
        return await self._leases.put(wish)

    async def release(self, given: Return) -> None:
        await self._returns.put(given)

    async def _take(self, batch: Sequence[Wish]) -> list[Lease | None]:
        return await leases.take(self._rooms, batch)

    async def _release(self, batch: Sequence[Return]) -> list[None]:
        await leases.release(self._rooms, batch)
        return [None] * len(batch)

    # --- what waits -------------------------------------------------------------------------------------------------

    async def waiting(self, wanted: Wanted) -> Waiting:
        """Merged by place; a doomed interview's finals are left out.

        What lies behind a batch that does not come to light is left for later, so that the order is that of storing.
        """
        wanted = wanted._replace(limit=min(wanted.limit, MAX_WAITING))
        view = await self._writing.view(wanted.interview)
        await self._writing.settle(view)  # each for itself: one that waits holds up no other
        found = await self._reads.put(wanted)
        upto = await self._upto(view, wanted.interview, max(found.places(), default=0))
        self._remember(wanted.interview, found)
        known = {name: documents.stream_from(doc) for name, doc in found.streams.items()}
        seen = {name: validity.limits(stream.epochs) for name, stream in known.items()}
        sink = wanted.sink
        given = [handoffs.final(doc, sink, seen[doc["stream"]]) for doc in found.finals if doc["stream"] in seen]
        given += [handoffs.completion(doc, sink) for doc in found.completed]
        given += [handoffs.deletion(doc, sink) for doc in found.deletions]
        given = sorted((one for one in given if one.place // MAX_SINKS <= upto), key=lambda one: one.place)
        streams = sorted(known.values(), key=lambda stream: stream.order)
        return Waiting(streams=tuple(streams), handoffs=tuple(given[: wanted.limit]))

    async def _upto(self, view: View, interview: str, highest: int) -> int:
        """The place up to which what was found is all there is."""
        if highest > view.upto and not view.open and (await self._writing.view(interview)).last < highest:
            return highest  # the counter is from an older backup than the finals
        return view.upto

    def _remember(self, interview: str, found: Found) -> None:
        if len(self._known) > MAX_KNOWN:
            self._known.clear()
        kinds: tuple[HandoffKind, ...] = ("final", "completed", "deleted")
        for kind, docs in zip(kinds, (found.finals, found.completed, found.deletions), strict=True):
            for doc in docs:
                state = doc["handoff"]
                self._known[interview, state["place"]] = Known(kind, doc["_id"], tuple(state["sinks"]))

    async def _read(self, batch: Sequence[Wanted]) -> list[Found]:
        sinks = {wanted.sink for wanted in batch}
        found = {sink: await self._read_for(sink, [one for one in batch if one.sink == sink]) for sink in sinks}
        return [found[wanted.sink][wanted.interview] for wanted in batch]

    async def _read_for(self, sink: str, batch: Sequence[Wanted]) -> dict[str, Found]:
        """Per interview.  Streams are read behind their finals: one that began meanwhile is then known."""
        limits: dict[str, int] = {}
        for one in batch:
            limits[one.interview] = max(one.limit, limits.get(one.interview, 0))
        segments, _, dooms = handoffs.shelves(self._rooms)
        finals, known, deletions = await asyncio.gather(
            _pending(segments, sink, limits),
            self._rooms.interviews.find({"_id": {"$in": list(limits)}}).batch_size(len(limits)).to_list(),
            _pending(dooms, sink, limits),
        )
        interviews = {doc["_id"]: doc for doc in known if documents.is_seen(doc)}
        streams = await self._streams(interviews, [doc for docs in finals.values() for doc in docs])
        return {
            name: Found(
                finals=finals[name],
                completed=[doc for doc in (interviews.get(name),) if doc is not None and _waits(doc, sink)],
                deletions=deletions[name],
                streams=streams.get(name, {}),
            )
            for name in limits
        }

    async def _streams(self, interviews: Mapping[str, Doc], finals: Sequence[Doc]) -> dict[str, dict[str, Doc]]:
        """Per interview and by id, those of the one that has the name now; a spoilt one is the trouble of its own."""
        ids = sorted({doc["stream"] for doc in finals if doc["interview"] in interviews})
        found: dict[str, dict[str, Doc]] = {}
        if ids:
            async for doc in self._rooms.streams.find({"_id": {"$in": ids}}).batch_size(len(ids)):
                name = doc["interview"]
                if name in interviews and doc.get("birth") == interviews[name].get("birth"):
                    found.setdefault(name, {})[doc["_id"]] = doc
        return found

    # --- what is done with ------------------------------------------------------------------------------------------

    async def handed(self, sink: str, interview: str, given: Collection[int]) -> None:
        """Only what this sink calls by these places, and of this interview, is touched."""
        await self._marks.put(Done(sink, interview, tuple(given)))

    async def _mark(self, batch: Sequence[Done]) -> list[None]:
        """Finals first: what is sent again when it is cut short, is sent before what comes behind them."""
        for shelf in handoffs.shelves(self._rooms):
            if marks := [*self._by_key(shelf, batch), *self._by_place(shelf, batch)]:
                await shelf.room.bulk_write(marks, ordered=False)
        names = sorted({done.interview for done in batch if self._kinds(done) - {"final", "completed"}})
        if names:
            over = {"interview": {"$in": names}, "handoff.pending": [], "handoff.dead": []}
            await self._rooms.deletions.delete_many(over)
        return [None] * len(batch)

    def _kinds(self, done: Done) -> set[HandoffKind | None]:
        return {self._kind(done, place) for place in done.places}

    def _kind(self, done: Done, place: int) -> HandoffKind | None:
        known = self._known.get((done.interview, place // MAX_SINKS))
        return None if known is None else known.kind

    def _by_key(self, shelf: Shelf, batch: Iterable[Done]) -> list[UpdateMany]:
        """Finals that are known: for each sink one update of those of all interviews, by keys alone."""
        keys: dict[str, list[Any]] = {}
        for done in batch:
            for place in done.places:
                place, number = divmod(place, MAX_SINKS)
                known = self._known.get((done.interview, place))
                if known is None or not known.kind == shelf.kind == "final":
                    continue
                if (number, done.sink) in enumerate(known.sinks):
                    keys.setdefault(done.sink, []).append(known.id)
        return [UpdateMany({"_id": {"$in": ids}}, _without(sink)) for sink, ids in keys.items()]

    def _by_place(self, shelf: Shelf, batch: Iterable[Done]) -> list[UpdateMany]:
        """The others; what nothing is known of may be of any kind."""
        kinds = (None,) if shelf.kind == "final" else (None, shelf.kind)
        marks = []
        for done in batch:
            wanted = [place for place in done.places if self._kind(done, place) in kinds]
            for number in sorted({place % MAX_SINKS for place in wanted}):
                places = [place // MAX_SINKS for place in wanted if place % MAX_SINKS == number]
                query = {shelf.interview: done.interview, "handoff.place": {"$in": places}}
                query |= {f"handoff.sinks.{number}": done.sink, "handoff.pending": done.sink}
                marks.append(UpdateMany(query, _without(done.sink)))
        return marks


def _without(sink: str) -> Doc:
    return {"$pull": {"handoff.pending": sink}}


def _waits(doc: Doc, sink: str) -> bool:
    return sink in doc.get("handoff", {}).get("pending", ())


async def _pending(shelf: Shelf, sink: str, limits: Mapping[str, int]) -> dict[str, list[Doc]]:
    """The oldest of each interview, as many as its limit: all in one query, and where that is more than a page, the
    interviews the page does not reach with one each."""
    most = min(sum(limits.values()), MAX_WAITING)
    page = await _query(shelf, sink, list(limits), most)
    found: dict[str, list[Doc]] = {name: [] for name in limits}
    for doc in page:
        found[doc[shelf.interview]].append(doc)
    if len(page) == most and len(limits) > 1:
        last = page[-1][shelf.interview]
        short = [name for name, docs in found.items() if (not docs or name == last) and len(docs) < limits[name]]
        again = await asyncio.gather(*(_query(shelf, sink, [name], limits[name]) for name in short))
        found.update(zip(short, again, strict=True))
    return {name: docs[: limits[name]] for name, docs in found.items()}


async def _query(shelf: Shelf, sink: str, names: list[str], most: int) -> list[Doc]:
    named: Any = names[0] if len(names) == 1 else {"$in": names}
    query = {shelf.interview: named, "handoff.pending": sink}
    found = shelf.room.find(query).sort([(shelf.interview, 1), ("handoff.place", 1)])
    return await found.limit(most).batch_size(most).to_list()
