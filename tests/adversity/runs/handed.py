"""What sinks were given, as the ledger writes it down."""

from __future__ import annotations

from streamsrv.sinks.events import TranscriptCompleted, TranscriptFinal, decode
from tests.adversity.runs.ledger import Handed


def handed_from(sink: str, body: bytes) -> Handed:
    """An event, as the sink holds it."""
    event = decode(body)
    given = {"sink": sink, "key": event.id, "interview": event.interview}
    match event:
        case TranscriptFinal():
            return Handed(
                **given,
                kind="final",
                stream=event.stream,
                epoch=event.epoch,
                channel=event.channel,
                segment=event.segment,
                text=event.text,
            )
        case TranscriptCompleted():
            return Handed(**given, kind="transcript.completed", revision=event.revision)
        case _:
            return Handed(**given, kind="transcript.deleted")
