"""Keeping finals: stored first, then looked whether the stream is still its owner's; ``epochs`` says why.

A batch costs three trips, however many finals it holds: places (and their announcement, see ``writing``), finals,
owners.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from pymongo.errors import BulkWriteError

from streamsrv.errors import NotFound
from streamsrv.events import Final
from streamsrv.stores import validity
from streamsrv.stores.base import StreamKey
from streamsrv.stores.mongo import documents, epochs, failures, handoffs
from streamsrv.stores.mongo.documents import Doc, Rooms
from streamsrv.stores.mongo.handoffs import Order
from streamsrv.stores.mongo.writing import Writing


class Keeping(NamedTuple):
    """One final on its way."""

    key: StreamKey
    final: Final
    order: Order | None
    """To whom it is to be handed on."""

    @property
    def id(self) -> str:
        return documents.segment_id(self.key, self.final)


def check(final: Final) -> None:
    """
    Raises:
        ValueError: a confidence is no number; no reader could use it.
    """
    if not all(math.isfinite(word.confidence) for word in final.words):
        raise ValueError("a word's confidence is not a finite number")


async def keep(rooms: Rooms, writing: Writing, batch: Sequence[Keeping]) -> list[bool | Exception]:
    """Store a batch; which of them are kept."""

    async def insert(first: int) -> set[int]:
        return await _insert(rooms, [_document(one, first + number) for number, one in enumerate(batch)])

    there = await writing.insert({one.key.interview for one in batch}, [one.id for one in batch], insert)
    streams = list({one.key.stream for one in batch})
    found = rooms.streams.find({"_id": {"$in": streams}}, {"interview": 1, "epoch": 1, "doomed": 1})
    owners = {doc["_id"]: doc async for doc in found}
    return [
        await _judge(rooms, one, owners.get(one.key.stream), new=number not in there)
        for number, one in enumerate(batch)
    ]


def _document(one: Keeping, place: int) -> Doc:
    doc = documents.segment_to(one.key, one.final, place)
    return doc if one.order is None else doc | {"handoff": handoffs.pending(one.order, place)}


async def _insert(rooms: Rooms, docs: Sequence[Doc]) -> set[int]:
    """Insert those that are not there yet; the numbers of those that are."""
    try:
        await rooms.segments.insert_many(docs, ordered=False)
    except BulkWriteError as error:
        return failures.duplicates(error)
    return set()


async def _judge(rooms: Rooms, one: Keeping, owner: Doc | None, *, new: bool) -> bool | Exception:
    """Whether a stored final counts; one that is new and does not is taken away again."""
    if owner is None or owner["interview"] != one.key.interview or owner.get("doomed"):
        answer: bool | Exception = NotFound("no such stream in this interview")
    elif owner["epoch"] == one.key.epoch or await _counts(rooms, one, new=new):
        return True if new else await _same(rooms, one)
    else:
        answer = False
    if new:
        await rooms.segments.delete_one({"_id": one.id})
    return answer


async def _counts(rooms: Rooms, one: Keeping, *, new: bool) -> bool:
    """Whether a final of an owner that lost its stream came in time: within its own epoch, before the next began."""
    try:
        doc = await epochs.settle(rooms, one.key.stream)
    except NotFound:
        return False
    known = documents.epochs_from(doc)
    own = [epoch.begins for epoch in known if epoch.epoch == one.key.epoch]
    channel, start = one.final.channel, one.final.start
    if doc.get("doomed") or not own or channel >= len(own[0]) or (new and start < own[0][channel]):
        return False
    return validity.counts(validity.limits(known), one.key.epoch, channel, start)


async def _same(rooms: Rooms, one: Keeping) -> bool | Exception:
    """A final that was there already: the same one, whose writer missed the answer, or another."""
    kept = await rooms.segments.find_one({"_id": one.id}, {"start": 1, "stop": 1, "text": 1})
    if kept is None:
        return False
    if (kept["start"], kept["stop"], kept["text"]) != (one.final.start, one.final.stop, one.final.text):
        return ValueError("another final is kept under this key")
    return True
