"""Documents to structs and back.

``interviews``  ``_id`` its name; ``status`` scheduled, live, completed, failed, or *beginning* while its first stream
                is being recorded (readers see none then); ``scheduledAt``, ``startedAt``, ``endedAt``, ``at`` (what
                lists are ordered by); ``birth``, told apart from an interview of the same name that was deleted;
                ``begun``, raised by every stream that begins; ``revision``, raised whenever it completes; ``deletedAt``
                while what is left of it is being deleted; ``handoff``, of its completion.
``streams``     ``_id`` its id; ``interview``, ``birth``, ``order``; ``epoch``, the one that owns it, raised atomically;
                ``epochs``, those whose beginning is settled; ``node``, whose server holds it; ``doomed`` when its
                interview is being deleted; the rest as in ``stores.base``.
``segments``    one document per final, written once; ``_id`` is its key; ``place``, its number in the order of storing;
                the final's own fields as in ``events.Final``; ``handoff``.
``jobs``        the job's own fields as in ``stores.base``; ``ord``, their order; ``node``, where its file is.
``deletions``   what the sinks have still to hear of deleted interviews.
``leases``      who relays what: ``node``; ``until``, the number it raises.
``nodes``       which servers live.
``meta``        the version, and the last place given, with the batches under way (``writing``).

Times are dates.  Every document has ``schema``.  Documents are changed field by field, and fields this version does not
know are left as they are; what a version needs and an older one did not write has a default here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, get_args

import msgspec
from bson.datetime_ms import DatetimeMS
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from streamsrv import events
from streamsrv.commands import Options
from streamsrv.stores.base import Anchor, EpochStart, Interview, InterviewStatus, Job, Stream, StreamKey

SCHEMA: Final = 1
"""Raised when documents change in a way an older version must know of; this one reads at most the next."""
Doc: TypeAlias = dict[str, Any]
Collection: TypeAlias = AsyncCollection[Doc]
STATUSES: Final[tuple[str, ...]] = get_args(InterviewStatus)
"""Of interviews readers see; others are beginning, or another program's."""
_OPTIONS: Final = frozenset(Options.__struct_fields__)


class Rooms(NamedTuple):
    """The collections."""

    interviews: Collection
    streams: Collection
    segments: Collection
    jobs: Collection
    deletions: Collection
    leases: Collection
    nodes: Collection
    meta: Collection


def rooms(database: AsyncDatabase[Doc]) -> Rooms:
    return Rooms(*(database[name] for name in Rooms._fields))


# --- times --------------------------------------------------------------------------------------------------------


def date(ms: int) -> DatetimeMS:
    return DatetimeMS(ms)


def ms(value: object) -> int | None:
    """Milliseconds since 1970 of a date, or of a number."""
    return int(value) if isinstance(value, DatetimeMS | int | float) else None


# --- interviews and streams ---------------------------------------------------------------------------------------


def is_seen(interview: Doc | None) -> bool:
    """Whether readers see it: it is of a status they know, and is not being deleted."""
    return interview is not None and interview.get("status") in STATUSES and interview.get("deletedAt") is None


def interview_from(doc: Mapping[str, Any]) -> Interview:
    return msgspec.convert(
        {
            "id": doc["_id"],
            "status": doc["status"],
            "scheduled_ms": ms(doc.get("scheduledAt")),
            "started_ms": ms(doc.get("startedAt")),
            "ended_ms": ms(doc.get("endedAt")),
        },
        Interview,
    )


def options_to(options: Options) -> Doc:
    found: Doc = msgspec.to_builtins(options)
    return found


def options_from(doc: Mapping[str, Any]) -> Options:
    """Those this version knows."""
    return msgspec.convert({key: value for key, value in doc.items() if key in _OPTIONS}, Options)


def epochs_to(epochs: Iterable[EpochStart]) -> list[Doc]:
    return [{"epoch": epoch.epoch, "begins": list(epoch.begins)} for epoch in epochs]


def epochs_from(doc: Mapping[str, Any]) -> tuple[EpochStart, ...]:
    """Those whose beginning is settled, oldest first."""
    return msgspec.convert(doc["epochs"], tuple[EpochStart, ...])


def stream_from(doc: Mapping[str, Any]) -> Stream:
    return Stream(
        id=doc["_id"],
        interview=doc["interview"],
        order=doc["order"],
        status=doc["status"],
        options=options_from(doc["options"]),
        engine=doc["engine"],
        epochs=epochs_from(doc),
        anchors=tuple(
            Anchor(position=int(one["position"]), utc_ms=ms(one["at"]) or 0)
            for one in sorted(doc.get("anchors", ()), key=lambda one: int(one["position"]))
        ),
        restarts=tuple(map(int, doc["restarts"])),
        started_ms=ms(doc["startedAt"]) or 0,
        ended_ms=ms(doc.get("endedAt")),
        position=None if doc.get("position") is None else int(doc["position"]),
        silence_ms=tuple(map(int, doc.get("silenceMs", ()))),
        loudest_discarded_dbfs=tuple(map(float, doc.get("loudestDiscardedDbfs", ()))),
    )


# --- finals -------------------------------------------------------------------------------------------------------


def segment_id(key: StreamKey, final: events.Final) -> str:
    """The key of a final; the stream's id is unique by itself."""
    return f"{key.stream}:{key.epoch}:{final.channel}:{final.segment}"


def segment_to(key: StreamKey, final: events.Final, place: int) -> Doc:
    body: Doc = msgspec.to_builtins(final)
    del body["event"]
    named = {"interview": key.interview, "stream": key.stream, "epoch": key.epoch, "place": place, "schema": SCHEMA}
    return {"_id": segment_id(key, final)} | named | body


def final_from(doc: Mapping[str, Any]) -> events.Final:
    return msgspec.convert(doc, events.Final)


# --- jobs ---------------------------------------------------------------------------------------------------------


def job_to(job: Job) -> Doc:
    body: Doc = msgspec.to_builtins(job, builtin_types=(bytes,))
    del body["id"]
    return body


def job_from(doc: Mapping[str, Any]) -> Job:
    return msgspec.convert({**doc, "id": doc["_id"], "options": options_to(options_from(doc["options"]))}, Job)


def names(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    return [doc["_id"] for doc in documents]
