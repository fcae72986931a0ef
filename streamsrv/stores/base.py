"""The whole contract of a store: where interviews, streams and finals are kept for good.

Keys of documents are ours, never a client's.  Times are UTC, in milliseconds since 1970.  Every method may raise
``StoreUnavailable``; nothing was then promised, and the same call may be made again: all writes are idempotent.

*Epoch*: each connection that takes a stream over gets the stream's next epoch from the store, atomically, together
with each channel's position where it begins (the end of its stored finals).  What an older epoch offers from then on
is refused, and readers ignore finals of epoch e that start at or after the beginning of a later epoch.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

import msgspec

from streamsrv.commands import Options
from streamsrv.events import Final
from streamsrv.facts import ChannelStart, Position

InterviewStatus: TypeAlias = Literal["scheduled", "live", "completed", "failed"]
StreamStatus: TypeAlias = Literal["live", "ended"]


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """Ties a position to the wall: the sample at ``position`` arrived at ``utc_ms``."""

    position: Position
    utc_ms: int


class EpochStart(msgspec.Struct, frozen=True, kw_only=True):
    epoch: int
    begins: tuple[Position, ...]
    """Per channel."""


class Interview(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    status: InterviewStatus
    scheduled_ms: int | None = None
    started_ms: int | None = None
    ended_ms: int | None = None


class StreamKey(msgspec.Struct, frozen=True, kw_only=True):
    """Names one epoch of one stream; with channel and segment, the key of a final."""

    interview: str
    stream: str
    epoch: int


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """One connection or upload that is not a resume."""

    id: str
    interview: str
    order: int
    """From 1, within the interview."""
    status: StreamStatus
    options: Options
    engine: str
    epochs: tuple[EpochStart, ...]
    """Oldest first; the last one owns the stream."""
    anchors: tuple[Anchor, ...]
    restarts: tuple[Position, ...]
    """Per channel: the acknowledged restart point."""
    started_ms: int
    ended_ms: int | None = None
    silence_ms: tuple[int, ...] = ()
    """Per channel, when ended: audio outside all segments."""
    loudest_discarded_dbfs: tuple[float, ...] = ()


class Resumed(msgspec.Struct, frozen=True, kw_only=True):
    """A stream taken over: the new epoch, and where each channel goes on."""

    stream: Stream
    key: StreamKey
    starts: tuple[ChannelStart, ...]
    finals: tuple[Final, ...]
    """All valid finals so far, by channel and segment order of start."""


class StoredFinal(msgspec.Struct, frozen=True, kw_only=True):
    stream: str
    epoch: int
    final: Final


class StreamStats(msgspec.Struct, frozen=True, kw_only=True):
    silence_ms: tuple[int, ...] = ()
    loudest_discarded_dbfs: tuple[float, ...] = ()


class TranscriptStore(Protocol):
    """Interviews, streams and finals, for good."""

    async def open(self) -> None:
        """Open, migrate, check.

        Raises:
            SetupError: corrupt, from the future, or held by another server; never overwrites.
        """

    async def close(self) -> None:
        """Finish what was accepted, then close.  Safe to call twice."""

    async def begin_stream(
        self, *, interview: str, stream: str, token_hash: bytes, options: Options, engine: str, now_ms: int
    ) -> Stream:
        """Record a new stream, epoch 1; the interview becomes (again) live, and is created when unknown."""

    async def configure_stream(self, key: StreamKey, options: Options) -> None:
        """Replace the options of a stream that has no audio yet."""

    async def resume_stream(self, stream: str, token_hash: bytes, *, now_ms: int) -> Resumed:
        """Take a stream over: its next epoch, atomically with where each channel begins.

        Raises:
            NotFound: no such stream.
            Forbidden: the token is not this stream's (compared in constant time).
            StreamEnded: it ended.
        """

    async def keep_final(self, key: StreamKey, final: Final) -> bool:
        """Store one final, durably.  Called in segment order per channel.

        Returns:
            False when a newer epoch owns the stream and the final was refused.
        """

    async def keep_progress(self, key: StreamKey, restarts: tuple[Position, ...], anchors: tuple[Anchor, ...]) -> bool:
        """Store restart points per channel and add new anchors, durably.

        Returns:
            False when a newer epoch owns the stream.
        """

    async def end_stream(self, key: StreamKey, *, stats: StreamStats, now_ms: int) -> bool:
        """Mark the stream ended; the interview is completed when none of its streams is live.

        Returns:
            False when a newer epoch owns the stream.
        """

    async def interview(self, interview: str) -> Interview | None: ...

    async def streams(self, interview: str) -> tuple[Stream, ...]:
        """By ``order``."""

    async def finals(self, interview: str) -> tuple[StoredFinal, ...]:
        """All valid finals, by stream order, channel, start."""

    async def live_streams(self) -> tuple[Stream, ...]:
        """Streams not ended, of all interviews: after a crash, those to be resumed or ended."""
