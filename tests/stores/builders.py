"""Things to keep: finals, words, keys, in as few letters as the tests need."""

from __future__ import annotations

import hashlib

from streamsrv.commands import Options
from streamsrv.events import Final
from streamsrv.facts import Word
from streamsrv.stores.base import Stream, StreamKey, TranscriptStore

SECOND = 16_000
"""Samples."""
NOW_MS = 1_790_000_000_000
TWO = Options(channels=2, multichannel=True)


def token(stream: str) -> bytes:
    return hashlib.sha256(stream.encode()).digest()


def word(text: str, start: int, stop: int, *, confidence: float = 0.5, glued: bool = False) -> Word:
    return Word(text=text, start=start, stop=stop, confidence=confidence, glued=glued)


def final(
    segment: int,
    *,
    channel: int = 0,
    utterance: int | None = None,
    start: int | None = None,
    stop: int | None = None,
    text: str | None = None,
    endpoint: bool = True,
) -> Final:
    """Segment n lies in second n unless said otherwise."""
    start = segment * SECOND if start is None else start
    stop = start + SECOND if stop is None else stop
    text = f"segment {segment}" if text is None else text
    pieces = text.split()
    step = (stop - start) // max(1, len(pieces))
    return Final(
        channel=channel,
        utterance=segment if utterance is None else utterance,
        segment=segment,
        start=start,
        stop=stop,
        text=text,
        words=tuple(word(piece, start + i * step, start + (i + 1) * step) for i, piece in enumerate(pieces)),
        cause="vad",
        endpoint=endpoint,
        engine="scripted",
    )


async def begin(
    store: TranscriptStore,
    interview: str = "talk",
    stream: str = "s1",
    *,
    options: Options | None = None,
    now_ms: int = NOW_MS,
) -> tuple[Stream, StreamKey]:
    begun = await store.begin_stream(
        interview=interview,
        stream=stream,
        token_hash=token(stream),
        options=options or Options(),
        engine="scripted",
        now_ms=now_ms,
    )
    return begun, StreamKey(interview=interview, stream=stream, epoch=1)


async def texts(store: TranscriptStore, interview: str = "talk") -> list[str]:
    return [kept.final.text for kept in await store.finals(interview)]
