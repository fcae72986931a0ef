"""The transcript of an interview as one document: its streams merged by wall time."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from itertools import groupby

import msgspec

from streamsrv.events import Final
from streamsrv.facts import RATE_HZ, Cause
from streamsrv.stores.base import Interview, InterviewStatus, StoredFinal, Stream, StreamStatus
from streamsrv.stores.transcript.wall import Wall, interview_zero_ms


class LineWord(msgspec.Struct, frozen=True, kw_only=True):
    """One word; times in ms since the interview's zero."""

    text: str
    start_ms: int
    stop_ms: int
    confidence: float
    """0.0 to 1.0."""
    estimated: bool
    """Whether ``confidence`` is a guess because the engine gave none."""
    glued: bool
    """No space stands between this word and the one before."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One final.  ``start_ms``, ``stop_ms``: since the interview's zero, the earliest first sample of its streams."""

    stream: str
    epoch: int
    channel: int
    utterance: int
    segment: int
    label: str
    """Who speaks: the stream's speaker, its number when there are several, the channel when there are several."""
    start_ms: int
    stop_ms: int
    start_utc_ms: int
    """Since 1970."""
    stop_utc_ms: int
    text: str
    """Empty when nothing was heard; see ``failed``."""
    words: tuple[LineWord, ...]
    language: str | None
    cause: Cause
    endpoint: bool
    engine: str
    failed: bool
    """The engine gave up: there was speech, it has no words."""


class Speaker(msgspec.Struct, frozen=True, kw_only=True):
    """One stream, without what is nobody's business."""

    id: str
    order: int
    speaker: str | None
    status: StreamStatus
    engine: str
    language: str | None
    channels: int
    """Transcribed on their own."""
    started_utc_ms: int
    ended_utc_ms: int | None
    audio_ms: int | None
    """Length of its audio; ``null`` before its end, and when that is not known."""
    silence_ms: tuple[int, ...]
    """Per channel, when ended: audio outside all segments."""
    loudest_discarded_dbfs: tuple[float | None, ...]
    """Per channel, the loudest 100 ms of it; ``null``: there was none, or digital silence."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """The interview itself."""

    id: str
    status: InterviewStatus
    scheduled_utc_ms: int | None
    started_utc_ms: int | None
    ended_utc_ms: int | None
    zero_utc_ms: int | None
    """What ``start_ms`` counts from; ``null`` when there is no stream."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """``interview``, its ``streams`` by order, and all ``segments`` by wall time of their start."""

    interview: About
    streams: tuple[Speaker, ...]
    segments: tuple[Line, ...]


def document(interview: Interview, streams: Sequence[Stream], finals: Iterable[StoredFinal]) -> Document:
    """Merge what a store keeps of one interview.

    Args:
        streams: all of the interview.
        finals: the valid ones, of these streams, in any order.

    Returns:
        Every final once; those of one channel in order of position, also where the wall clock was set back.
    """
    ordered = sorted(streams, key=lambda stream: stream.order)
    walls = {stream.id: Wall(stream) for stream in ordered}
    zero_ms = interview_zero_ms(walls.values())
    by_id = {stream.id: stream for stream in ordered}
    lines = (
        [
            _line(one, by_id[one.stream], walls[one.stream], zero_ms, several=len(ordered) > 1)
            for one in sorted(track, key=lambda kept: (kept.final.start, kept.epoch, kept.final.segment))
        ]
        for _, track in groupby(sorted(finals, key=lambda kept: _track(kept, by_id)), lambda kept: _track(kept, by_id))
    )
    return Document(
        interview=_about(interview, zero_ms if ordered else None),
        streams=tuple(map(_speaker, ordered)),
        segments=_merged(lines),
    )


def _track(kept: StoredFinal, streams: dict[str, Stream]) -> tuple[int, int]:
    return streams[kept.stream].order, kept.final.channel


def _merged(tracks: Iterable[Sequence[Line]]) -> tuple[Line, ...]:
    """By start.  Each track is taken from its head, so it keeps its own order where its clock was set back."""
    return tuple(heapq.merge(*tracks, key=lambda line: line.start_utc_ms))


def _line(kept: StoredFinal, stream: Stream, wall: Wall, zero_ms: int, *, several: bool) -> Line:
    final = kept.final
    start_ms = wall.start_ms(final.start)
    stop_ms = max(start_ms, wall.stop_ms(final.stop))
    return Line(
        stream=kept.stream,
        epoch=kept.epoch,
        channel=final.channel,
        utterance=final.utterance,
        segment=final.segment,
        label=_label(stream, final.channel, several=several),
        start_ms=start_ms - zero_ms,
        stop_ms=stop_ms - zero_ms,
        start_utc_ms=start_ms,
        stop_utc_ms=stop_ms,
        text=final.text,
        words=_words(final, wall, zero_ms),
        language=final.language,
        cause=final.cause,
        endpoint=final.endpoint,
        engine=final.engine,
        failed=final.failed,
    )


def _words(final: Final, wall: Wall, zero_ms: int) -> tuple[LineWord, ...]:
    return tuple(
        LineWord(
            text=word.text,
            start_ms=(start_ms := wall.start_ms(word.start) - zero_ms),
            stop_ms=max(start_ms, wall.stop_ms(word.stop) - zero_ms),
            confidence=word.confidence,
            estimated=word.estimated,
            glued=word.glued,
        )
        for word in final.words
    )


def _label(stream: Stream, channel: int, *, several: bool) -> str:
    who = stream.options.speaker or (f"Stream {stream.order}" if several else "")
    where = f"Channel {channel + 1}" if stream.options.tracks > 1 else ""
    return " ".join(filter(None, (who, where)))


def _speaker(stream: Stream) -> Speaker:
    return Speaker(
        id=stream.id,
        order=stream.order,
        speaker=stream.options.speaker,
        status=stream.status,
        engine=stream.engine,
        language=stream.options.language,
        channels=stream.options.tracks,
        started_utc_ms=stream.started_ms,
        ended_utc_ms=stream.ended_ms,
        audio_ms=None if stream.position is None else round(stream.position * 1000 / RATE_HZ),
        silence_ms=stream.silence_ms,
        loudest_discarded_dbfs=tuple(
            level if math.isfinite(level) else None for level in stream.loudest_discarded_dbfs
        ),
    )


def _about(interview: Interview, zero_ms: int | None) -> About:
    return About(
        id=interview.id,
        status=interview.status,
        scheduled_utc_ms=interview.scheduled_ms,
        started_utc_ms=interview.started_ms,
        ended_utc_ms=interview.ended_ms,
        zero_utc_ms=zero_ms,
    )
