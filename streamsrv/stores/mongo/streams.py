"""Streams and their interviews: begun, configured, moved on, ended.

Each step changes one document and can be repeated; what a crash leaves half done, the same call, or the end of the
stream by whoever looks after streams nobody holds, completes.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import DuplicateKeyError

from streamsrv.commands import Options
from streamsrv.errors import Conflict, NotFound
from streamsrv.facts import Position
from streamsrv.stores.base import Anchor, EpochStart, Stream, StreamKey, StreamStats
from streamsrv.stores.mongo import documents, handoffs, places
from streamsrv.stores.mongo.documents import SCHEMA, Doc, Rooms, date
from streamsrv.stores.mongo.handoffs import Order

MAX_ANCHORS = 10_000
"""Anchors kept per stream; later ones are dropped, and wall times from there on follow the last one kept."""
MAX_RACES = 1_000
"""Streams that may take an order number before one that begins at the same time gives up."""


class New(NamedTuple):
    """A stream to be recorded."""

    interview: str
    stream: str
    token_hash: bytes
    options: Options
    engine: str
    node: str
    now_ms: int


# --- begin --------------------------------------------------------------------------------------------------------


async def begin(rooms: Rooms, new: New) -> Stream:
    """Record a stream, or find it recorded already.

    Raises:
        Conflict: another stream has this id, or the interview is being deleted.
    """
    doc = await _known(rooms, new)
    if doc is None:
        birth = await _interview(rooms, new)
        doc = await _insert(rooms, new, birth)
    if doc["status"] == "live" and not await _enliven(rooms, new, doc["birth"]):
        await rooms.streams.delete_one({"_id": new.stream, "birth": doc["birth"]})
        raise _doomed()
    return documents.stream_from(doc)


async def _known(rooms: Rooms, new: New) -> Doc | None:
    doc = await rooms.streams.find_one({"_id": new.stream})
    if doc is not None and (
        doc["interview"] != new.interview or not hmac.compare_digest(doc["tokenHash"], new.token_hash)
    ):
        raise Conflict("another stream has this id", hint="use a new id for each stream")
    return doc


async def _interview(rooms: Rooms, new: New) -> str:
    """Make sure that the interview is there; which of that name it is.

    One that is new is not seen by readers before its first stream is recorded.
    """
    born = {"status": "beginning", "birth": secrets.token_hex(8), "schema": SCHEMA}
    try:
        doc = await rooms.interviews.find_one_and_update(
            {"_id": new.interview, "deletedAt": None},
            {"$setOnInsert": born},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
    except DuplicateKeyError:
        doc = None
    if doc is None:
        raise _doomed()
    if "birth" not in doc:  # somebody scheduled it
        query = {"_id": new.interview, "birth": None}
        await rooms.interviews.update_one(query, {"$set": {"birth": born["birth"]}})
        return await _interview(rooms, new)
    return str(doc["birth"])


async def _insert(rooms: Rooms, new: New, birth: str) -> Doc:
    """Insert the stream with the next order number: a unique index gives each to one stream only."""
    zeros = (0,) * new.options.tracks
    doc: Doc = {
        "_id": new.stream,
        "interview": new.interview,
        "birth": birth,
        "status": "live",
        "tokenHash": new.token_hash,
        "options": documents.options_to(new.options),
        "engine": new.engine,
        "epoch": 1,
        "epochs": documents.epochs_to((EpochStart(epoch=1, begins=zeros),)),
        "restarts": list(zeros),
        "anchors": [],
        "startedAt": date(new.now_ms),
        "node": new.node,
        "schema": SCHEMA,
    }
    for _ in range(MAX_RACES):
        last = await rooms.streams.find_one({"birth": birth}, {"order": 1}, sort=[("order", -1)])
        doc["order"] = 1 if last is None else last["order"] + 1
        try:
            await rooms.streams.insert_one(doc)
        except DuplicateKeyError:
            if (known := await _known(rooms, new)) is not None:
                return known
        else:
            return doc
    raise Conflict(f"{MAX_RACES} streams began before this one", hint="try again")


async def _enliven(rooms: Rooms, new: New, birth: str) -> bool:
    """The interview is live, and not complete any more; False when it is being deleted.

    Raising ``begun`` after the stream is there keeps ``complete``, which looked before, from completing it now.
    """
    query = {"_id": new.interview, "birth": birth, "deletedAt": None}
    change = {"$inc": {"begun": 1}, "$set": {"status": "live"}, "$unset": {"endedAt": "", "handoff": ""}}
    first = {"startedAt": date(new.now_ms), "at": date(new.now_ms)}
    done = await rooms.interviews.update_one(query | {"startedAt": None}, change | {"$set": {"status": "live"} | first})
    if not done.matched_count:
        done = await rooms.interviews.update_one(query, change)
    return bool(done.matched_count)


def _doomed() -> Conflict:
    return Conflict("the interview is being deleted", hint="try again when it is gone, or use another id")


# --- configure, move on -------------------------------------------------------------------------------------------


async def configure(rooms: Rooms, key: StreamKey, options: Options) -> None:
    """Nothing happens when a newer epoch owns the stream.

    Raises:
        Conflict: finals of the stream are stored already.
    """
    doc = await owner(rooms, key)
    if doc["epoch"] != key.epoch or doc["status"] != "live":
        return
    if await rooms.segments.find_one({"stream": key.stream}, {"_id": 1}) is not None:
        raise Conflict("the stream has finals; its options are settled")
    zeros = (0,) * options.tracks
    epochs = (msgspec.structs.replace(epoch, begins=zeros) for epoch in documents.epochs_from(doc))
    await rooms.streams.update_one(
        {"_id": key.stream, "epoch": key.epoch, "status": "live"},
        {
            "$set": {
                "options": documents.options_to(options),
                "epochs": documents.epochs_to(epochs),
                "restarts": list(zeros),
            }
        },
    )


class Moved(NamedTuple):
    """New restart points, and anchors."""

    key: StreamKey
    restarts: tuple[Position, ...]
    anchors: tuple[Anchor, ...]


async def move_on(rooms: Rooms, batch: Sequence[Moved]) -> list[bool | Exception]:
    """Store a batch of restart points; for each whether its stream was its owner's."""
    changes = [UpdateOne(*change) for one in batch for change in _changes(one)]
    done = await rooms.streams.bulk_write(changes, ordered=True)
    if done.matched_count == len(changes):
        return [True] * len(batch)
    return [await _moved(rooms, one) for one in batch]


def _changes(one: Moved) -> list[tuple[Doc, Doc]]:
    """Anchors one by one: the first at a position stays."""
    mine = {"_id": one.key.stream, "interview": one.key.interview, "epoch": one.key.epoch}
    room: Doc = {f"anchors.{MAX_ANCHORS - 1}": {"$exists": False}}
    changes: list[tuple[Doc, Doc]] = [
        (
            mine | room | {"anchors.position": {"$ne": anchor.position}},
            {"$push": {"anchors": {"position": anchor.position, "at": date(anchor.utc_ms)}}},
        )
        for anchor in one.anchors
    ]
    return [*changes, (mine, {"$set": {"restarts": list(one.restarts)}})]


async def _moved(rooms: Rooms, one: Moved) -> bool | Exception:
    """Epochs only grow: who owns the stream now owned it a moment ago."""
    try:
        return bool((await owner(rooms, one.key))["epoch"] == one.key.epoch)
    except NotFound as error:
        return error


async def owner(rooms: Rooms, key: StreamKey) -> Doc:
    """The stream's document.

    Raises:
        NotFound: no such stream in this interview.
    """
    doc = await rooms.streams.find_one({"_id": key.stream, "interview": key.interview})
    if doc is None:
        raise NotFound("no such stream in this interview")
    return doc


# --- end ----------------------------------------------------------------------------------------------------------


async def end(
    rooms: Rooms,
    key: StreamKey,
    *,
    stats: StreamStats,
    now_ms: int,
    order: Order | None,
    completed: Callable[[str], Any],
) -> bool:
    """Mark it ended, then see whether the interview is complete.

    Args:
        completed: told the interview when it is.
    """
    ended = {
        "status": "ended",
        "endedAt": date(now_ms),
        "position": stats.position,
        "silenceMs": list(stats.silence_ms),
        "loudestDiscardedDbfs": list(stats.loudest_discarded_dbfs),
    }
    done = await rooms.streams.update_one(
        {"_id": key.stream, "interview": key.interview, "epoch": key.epoch, "status": "live"}, {"$set": ended}
    )
    if not done.matched_count and (await owner(rooms, key))["epoch"] != key.epoch:
        return False
    if await complete(rooms, key.interview, now_ms=now_ms, order=order):
        completed(key.interview)
    return True


async def complete_interrupted(
    rooms: Rooms, *, now_ms: int, order: Order | None, completed: Callable[[str], Any]
) -> None:
    """Complete interviews whose last stream ended, and whose server died before it could say so."""
    busy = set(await rooms.streams.distinct("birth", {"status": "live"}))
    found = await rooms.interviews.find({"status": "live", "deletedAt": None}, {"birth": 1}).to_list()
    for doc in found:
        if doc["birth"] not in busy and await complete(rooms, doc["_id"], now_ms=now_ms, order=order):
            completed(doc["_id"])


async def complete(rooms: Rooms, interview: str, *, now_ms: int, order: Order | None) -> bool:
    """Mark the interview completed if none of its streams is live; whether that was done now.

    A stream that begins meanwhile raises ``begun``, and then it is looked again.
    """
    while True:
        doc = await rooms.interviews.find_one({"_id": interview})
        if doc is None or doc.get("deletedAt") is not None or doc["status"] != "live":
            return False
        if await rooms.streams.find_one({"birth": doc["birth"], "status": "live"}, {"_id": 1}) is not None:
            return False
        change: Doc = {"$inc": {"revision": 1}, "$set": {"status": "completed", "endedAt": date(now_ms)}}
        if order is not None:
            change["$set"]["handoff"] = handoffs.pending(order, await places.take(rooms))
        query = {"_id": interview, "birth": doc["birth"], "status": "live", "begun": doc["begun"], "deletedAt": None}
        if (await rooms.interviews.update_one(query, change)).matched_count:
            return True
