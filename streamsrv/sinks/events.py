"""The events as consumers see them: one JSON object each, described by the JSON Schema in ``docs/events``.

What changes here must leave old consumers working: fields may be added, and types of events; nothing is taken away,
renamed or given another meaning.  ``VERSION`` counts: the second number rises with each addition.  ``docs/events.md``
tells consumers what they may rely on.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

VERSION: Final = "1.0"

Milliseconds = Annotated[int, Meta(description="Milliseconds.")]
UtcMs = Annotated[int, Meta(description="Milliseconds since 1970, UTC.")]
Id = Annotated[
    str, Meta(description="The same whenever this event is sent again; dedupe by it. Opaque: compare, do not parse.")
]
Version = Annotated[
    str, Meta(pattern=r"^1\.\d+$", description="Version of this description; the first number never changes.")
]
Interview = Annotated[str, Meta(description="The interview; its events are in order among themselves.")]
StreamId = Annotated[str, Meta(description="One speaker's connection or one uploaded file; never used again.")]


class EventWord(msgspec.Struct, frozen=True, kw_only=True):
    """One word, in the order in which words were said."""

    text: str
    start_ms: Annotated[int, Meta(ge=0, description="On the stream's audio clock.")]
    stop_ms: Annotated[int, Meta(ge=0)]
    confidence: Annotated[float, Meta(ge=0, le=1)]
    estimated: Annotated[bool, Meta(description="The confidence is a guess: the engine gave none.")]
    glued: Annotated[bool, Meta(description="No space stands between this word and the one before.")]


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    version: Version
    id: Id
    interview: Interview
    stored_utc_ms: Annotated[int, Meta(description="When it was stored, in milliseconds since 1970, UTC.")]


class TranscriptFinal(_Event, frozen=True, kw_only=True, tag="transcript.final"):
    """The words of one segment, for good. Of two with the same stream, channel and segment the higher epoch counts."""

    stream: StreamId
    epoch: Annotated[int, Meta(ge=1, description="Rises each time the stream is taken over.")]
    channel: Annotated[int, Meta(ge=0)]
    segment: Annotated[int, Meta(ge=0, description="Counts the finals of this stream and channel, without gaps.")]
    utterance: Annotated[int, Meta(ge=0, description="Counts speech starts; a long utterance has several segments.")]
    speaker: Annotated[str | None, Meta(description="The label its client gave the stream.")]
    start_ms: Annotated[int, Meta(ge=0, description="On the stream's audio clock: 0 is its first sample.")]
    stop_ms: Annotated[int, Meta(ge=0)]
    start_utc_ms: UtcMs
    stop_utc_ms: UtcMs
    text: Annotated[str, Meta(description="Empty when nothing was heard.")]
    words: tuple[EventWord, ...]
    language: Annotated[str | None, Meta(description="BCP 47 tag the engine used or found.")]
    cause: Annotated[
        Literal["vad", "flush", "finish", "length"],
        Meta(description="Why the segment ended: silence, the client, the end of the stream, its length."),
    ]
    endpoint: Annotated[bool, Meta(description="The utterance ended with it.")]
    engine: str
    failed: Annotated[bool, Meta(description="There was speech, and the engine gave up on it.")]


class CompletedStream(msgspec.Struct, frozen=True, kw_only=True):
    """What one stream holds: whoever has fewer finals of it has missed some."""

    stream: StreamId
    speaker: str | None
    finals: Annotated[int, Meta(ge=0)]


class TranscriptCompleted(_Event, frozen=True, kw_only=True, tag="transcript.completed"):
    """No stream of the interview is live. Should it open and complete again, this comes with a higher revision."""

    revision: Annotated[int, Meta(ge=1)]
    started_utc_ms: UtcMs | None
    ended_utc_ms: UtcMs
    streams: tuple[CompletedStream, ...]


class TranscriptDeleted(_Event, frozen=True, kw_only=True, tag="transcript.deleted"):
    """The interview was deleted: drop these streams, also what of them comes later. Its name may be used again."""

    streams: tuple[StreamId, ...]
    deleted_utc_ms: UtcMs


AnyEvent: TypeAlias = TranscriptFinal | TranscriptCompleted | TranscriptDeleted

decode = msgspec.json.Decoder(AnyEvent).decode
"""An event from its JSON; fields that a later version added are ignored."""


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of an event."""
    (made,), components = msgspec.json.schema_components((AnyEvent,), ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"streamsrv-events-{VERSION}",
        "title": "Events that streamsrv hands to analysis",
        **made,
        "$defs": components,
    }
