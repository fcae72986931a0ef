"""From what a store keeps to what a sink is told."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from streamsrv.events import Final
from streamsrv.facts import RATE_HZ, Position
from streamsrv.sinks import events
from streamsrv.sinks.base import Record
from streamsrv.stores.base import StoredFinal, Stream
from streamsrv.stores.handoff import Completion, Deletion, Handoff
from streamsrv.stores.transcript.wall import Wall

_encode = msgspec.json.Encoder().encode


class Teller:
    """Writes the events of one interview.

    The same handoff gives the same event, whoever relays it and whenever: its times come from what was stored before
    it.

    Args:
        streams: of the interview, as they were when the handoffs were read.
    """

    def __init__(self, interview: str, streams: Sequence[Stream]) -> None:
        self._interview = interview
        self._streams = {stream.id: stream for stream in streams}
        self._walls: dict[str, Wall] = {}

    def final(self, handoff: Handoff, kept: StoredFinal) -> Record:
        """The words of one segment."""
        final, stream = kept.final, self._streams[kept.stream]
        wall = self._walls.get(kept.stream)
        if wall is None:
            wall = self._walls[kept.stream] = Wall(stream)
        start_utc_ms = wall.start_ms(final.start)
        event = events.TranscriptFinal(
            version=events.VERSION,
            id=f"{self._interview}/{kept.stream}/{kept.epoch}/{final.channel}/{final.segment}",
            interview=self._interview,
            stored_utc_ms=handoff.stored_ms,
            stream=kept.stream,
            epoch=kept.epoch,
            channel=final.channel,
            segment=final.segment,
            utterance=final.utterance,
            speaker=stream.options.speaker,
            start_ms=_ms(final.start),
            stop_ms=_ms(final.stop),
            start_utc_ms=start_utc_ms,
            stop_utc_ms=max(start_utc_ms, wall.stop_ms(final.stop)),
            text=final.text,
            words=_words(final),
            language=final.language,
            cause=final.cause,
            endpoint=final.endpoint,
            engine=final.engine,
            failed=final.failed,
        )
        return self._record(event, "transcript.final")

    def completed(self, handoff: Handoff, done: Completion, finals: Sequence[StoredFinal]) -> Record:
        """The interview is complete.

        Args:
            finals: the valid ones of the interview.
        """
        counts = dict.fromkeys(self._streams, 0)
        for kept in finals:
            counts[kept.stream] = counts.get(kept.stream, 0) + 1
        event = events.TranscriptCompleted(
            version=events.VERSION,
            # A name may be used again after a deletion, and its revisions begin again.
            id=f"{self._interview}/completed/{done.started_ms or 0}/{done.revision}",
            interview=self._interview,
            stored_utc_ms=handoff.stored_ms,
            revision=done.revision,
            started_utc_ms=done.started_ms,
            ended_utc_ms=done.ended_ms,
            streams=tuple(
                events.CompletedStream(stream=name, speaker=stream.options.speaker, finals=counts[name])
                for name, stream in self._streams.items()
            ),
        )
        return self._record(event, "transcript.completed")

    def deleted(self, handoff: Handoff, gone: Deletion) -> Record:
        """The interview is no more."""
        event = events.TranscriptDeleted(
            version=events.VERSION,
            id=f"{self._interview}/deleted/{gone.deleted_ms}",
            interview=self._interview,
            stored_utc_ms=handoff.stored_ms,
            streams=gone.streams,
            deleted_utc_ms=gone.deleted_ms,
        )
        return self._record(event, "transcript.deleted")

    def _record(self, event: events.AnyEvent, kind: str) -> Record:
        return Record(interview=self._interview, id=event.id, kind=kind, body=_encode(event))


def _ms(position: Position) -> int:
    return position * 1000 // RATE_HZ


def _words(final: Final) -> tuple[events.EventWord, ...]:
    return tuple(
        events.EventWord(
            text=word.text,
            start_ms=_ms(word.start),
            stop_ms=_ms(word.stop),
            confidence=word.confidence,
            estimated=word.estimated,
            glued=word.glued,
        )
        for word in final.words
    )
