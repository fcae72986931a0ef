"""Who owns a stream, without transactions.

Taking a stream over has two steps.  First its ``epoch`` is raised by one atomic increment: from then on no owner before
it is told that a final is kept, because each looks at ``epoch`` *after* it has stored a final.  Then the beginning of
the new epoch is *settled*: whoever comes first writes it into ``epochs``, computed from the finals that are stored by
then.  What an older owner stored before the increment is among them; what came later is valid exactly if it lies before
that beginning, and its owner is told so.  A process that dies between the steps harms nobody: whoever meets an epoch
that is not settled settles it.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

from pymongo import ReturnDocument

from streamsrv.errors import Conflict, Forbidden, NotFound, StreamEnded
from streamsrv.stores import validity
from streamsrv.stores.base import EpochStart, Resumed, StreamKey
from streamsrv.stores.mongo import documents
from streamsrv.stores.mongo.documents import Doc, Rooms

MAX_EPOCHS = 4096
"""Times a stream may be taken over; then resuming it is refused and the client begins a new stream."""
_PLACED = dict.fromkeys(validity.Placed._fields, 1) | {"_id": 0}


async def resume(rooms: Rooms, stream: str, token_hash: bytes, node: str) -> Resumed:
    """As the contract says."""
    await _admit(rooms, stream, token_hash)
    raised = await rooms.streams.find_one_and_update(
        {"_id": stream, "status": "live", "doomed": None, "epoch": {"$lt": MAX_EPOCHS}},
        {"$inc": {"epoch": 1}, "$set": {"node": node}},
        return_document=ReturnDocument.AFTER,
        projection={"epoch": 1},
    )
    if raised is None:
        await _admit(rooms, stream, token_hash)
        raise Conflict(f"the stream was resumed {MAX_EPOCHS} times", hint="begin a new stream")
    epoch = int(raised["epoch"])
    doc = await settle(rooms, stream)
    if doc.get("doomed"):
        raise NotFound("no such stream")
    # What others took over meanwhile is theirs.
    mine = doc | {"epochs": [one for one in doc["epochs"] if one["epoch"] <= epoch]}
    record = documents.stream_from(mine)
    bounds = validity.limits(record.epochs)
    found = [one async for one in rooms.segments.find({"stream": stream, "epoch": {"$lt": epoch}})]
    placed = sorted(_placed(one) for one in found)
    valid = [one for one in found if validity.counts(bounds, one["epoch"], one["channel"], one["start"])]
    valid.sort(key=lambda one: (one["channel"], one["start"], one["epoch"], one["segment"]))
    return Resumed(
        stream=record,
        key=StreamKey(interview=record.interview, stream=stream, epoch=epoch),
        starts=validity.continuations(record.epochs, record.restarts, placed),
        finals=tuple(map(documents.final_from, valid)),
    )


async def settle(rooms: Rooms, stream: str) -> Doc:
    """The stream's document, with the beginning of each of its epochs.

    Raises:
        NotFound: it is gone.
    """
    while True:
        doc = await rooms.streams.find_one({"_id": stream})
        if doc is None:
            raise NotFound("no such stream")
        if is_settled(doc):
            return doc
        known = documents.epochs_from(doc)
        found = rooms.segments.find({"stream": stream, "epoch": {"$lte": known[-1].epoch}}, _PLACED)
        placed = sorted([_placed(one) async for one in found])
        starts = validity.continuations(known, doc["restarts"], placed)
        begins = tuple(start.kept_to for start in starts)
        # Nobody was told of an epoch before it was settled, so those in between hold nothing.
        new = (EpochStart(epoch=epoch, begins=begins) for epoch in range(known[-1].epoch + 1, int(doc["epoch"]) + 1))
        await rooms.streams.update_one(
            {"_id": stream, "epochs": {"$size": len(known)}},
            {"$push": {"epochs": {"$each": documents.epochs_to(new)}}},
        )


def is_settled(doc: Mapping[str, Any]) -> bool:
    """Whether its newest epoch has its beginning; one that is doomed needs none."""
    return bool(doc.get("doomed")) or doc["epochs"][-1]["epoch"] >= doc["epoch"]


def _placed(doc: Mapping[str, Any]) -> validity.Placed:
    return validity.Placed(*(int(doc[name]) for name in validity.Placed._fields))


async def _admit(rooms: Rooms, stream: str, token_hash: bytes) -> None:
    """See whether the token opens the stream.

    Raises:
        NotFound, Forbidden, StreamEnded: as the contract says.
    """
    doc = await rooms.streams.find_one({"_id": stream}, {"interview": 1, "birth": 1, "tokenHash": 1, "status": 1})
    interview = None if doc is None else await rooms.interviews.find_one({"_id": doc["interview"]})
    if doc is None or interview is None or not documents.is_seen(interview) or interview["birth"] != doc["birth"]:
        raise NotFound("no such stream")
    if not hmac.compare_digest(doc["tokenHash"], token_hash):
        raise Forbidden("the resume token is not this stream's", hint="use the token from the stream's own 'ready'")
    if doc["status"] == "ended":
        raise StreamEnded("the stream has ended")
