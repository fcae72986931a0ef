"""The contract of a store: where interviews, streams and finals are kept for good.  Its second half, handing them on to
analysis, is ``stores.handoff``.

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
JobState: TypeAlias = Literal["queued", "running", "done", "failed", "cancelled"]
OPEN_JOBS: frozenset[JobState] = frozenset({"queued", "running"})
"""Jobs that still have to be worked on, also by the next process."""


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
    position: Position | None = None
    """Where its audio ended; unknown when the session that heard it could not say."""
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


class FinalName(msgspec.Struct, frozen=True):
    """Names a final within its interview, as readers know it: each segment has exactly one."""

    stream: str
    channel: int
    segment: int


class PlacedFinal(msgspec.Struct, frozen=True, kw_only=True):
    """A final and its place in the order in which the interview's finals were stored."""

    place: int
    """From 1, growing; comparable within one interview only, and until the server is started again."""
    stream: str
    final: Final


class ListedInterview(msgspec.Struct, frozen=True, kw_only=True):
    interview: Interview
    streams: int
    """How many it has."""
    at_ms: int
    """What lists are ordered by: when it began, or else when it is to begin; 0 when neither is known."""


class ListPlace(msgspec.Struct, frozen=True):
    """Where a list of interviews goes on: behind this one."""

    at_ms: int
    id: str


class StreamStats(msgspec.Struct, frozen=True, kw_only=True):
    position: Position | None = None
    silence_ms: tuple[int, ...] = ()
    loudest_discarded_dbfs: tuple[float, ...] = ()


class JobError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job failed, as its answer tells it."""

    code: str
    message: str
    hint: str = ""
    http_status: int = 500
    retryable: bool = False


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One uploaded file on its way to being a stream of its interview."""

    id: str
    interview: str
    state: JobState = "queued"
    options: Options
    """What was asked for; encoding, rate and channels are the file's own, known when it is opened."""
    engine: str
    stream: str
    """The stream it becomes; recorded when its first audio is there."""
    token_hash: bytes
    """Opens the stream for the process that goes on after a crash; no token hashes to it."""
    spooled: str
    """Name of its file among the uploads."""
    filename: str | None = None
    """As the client called it: shown, never used."""
    size_bytes: int
    created_ms: int
    started_ms: int | None = None
    ended_ms: int | None = None
    duration_ms: int | None = None
    """As its header claims, then as decoded."""
    audio_ms: int = 0
    """Heard so far, when it was last written."""
    attempts: int = 0
    """Times its decoder was lost."""
    starts: int = 0
    """Times a server began to hear it and was not seen to stop, since it last came further."""
    reached_ms: int = 0
    """How far it was then."""
    warnings: tuple[str, ...] = ()
    error: JobError | None = None


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

        It may wait a moment for company; ``hurry`` ends that.

        Returns:
            False when a newer epoch owns the stream.
        """

    def hurry(self) -> None:
        """A final waits behind: what waits for company, or is put next, is written at once."""

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

    async def left_streams(self) -> tuple[StreamKey, ...]:
        """Streams not ended that may have no server any more, with the epochs that own them: to be resumed or ended.

        Streams of servers that live, as far as the store knows them apart, and of open jobs are not among them; what
        the caller itself holds may be.
        """

    # --- reading on, listing, deleting ------------------------------------------------------------------------------

    async def place_of(self, interview: str, name: FinalName) -> int:
        """The place of a final; 0, which is before all, when it is not stored."""

    async def finals_since(self, interview: str, place: int, *, limit: int) -> tuple[PlacedFinal, ...]:
        """The valid finals stored after ``place``, in the order in which they were stored, at most ``limit``.

        Whoever goes on behind the last one misses none, however many servers write: none with a lower place comes to
        light later.  What was kept before the call is found: it waits, within bounds, rather than find nothing.
        """

    async def interviews(
        self,
        *,
        status: InterviewStatus | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        after: ListPlace | None = None,
        limit: int,
    ) -> tuple[ListedInterview, ...]:
        """Newest first, ties by id; ``since_ms <= at_ms < until_ms``; at most ``limit``, from behind ``after`` on."""

    async def delete_interview(self, interview: str) -> bool:
        """Delete an interview and all that is stored of it.

        It vanishes at once for readers, its streams take no more finals and no resume, a new stream of it is refused
        (``Conflict``) until all is gone.  What a crash interrupts is in ``expired`` until it is done.

        Returns:
            False when there was none.
        """

    async def expired(self, before_ms: int, *, limit: int) -> tuple[str, ...]:
        """Whose deletion was interrupted, then who completed before ``before_ms``, oldest first, then those of which
        there are only jobs, the newest of them ended before ``before_ms``: files that were refused."""

    # --- jobs -------------------------------------------------------------------------------------------------------

    async def keep_job(self, job: Job) -> None:
        """Record a job, or replace what is recorded under its id, durably; its place in the order stays.

        A store keeps a bounded number of jobs that have ended, the newest.

        Raises:
            NotFound: it was recorded before, and another server deleted it with its interview since.
        """

    async def job(self, job: str) -> Job | None: ...

    async def open_jobs(self) -> tuple[Job, ...]:
        """Jobs that are queued or running and whose files are on this node, in the order they were first kept."""
