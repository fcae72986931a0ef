"""One job from its turn to its end: heard, tried again, cancelled, recorded at every step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, TypeVar

import msgspec

from streamsrv import telemetry
from streamsrv.errors import (
    ClientFault,
    DecoderLost,
    Full,
    NotFound,
    ServerLost,
    Stopped,
    StoreUnavailable,
    StreamEnded,
    StreamsrvError,
)
from streamsrv.facts import RATE_HZ
from streamsrv.runtime.decoders import Decoders
from streamsrv.runtime.engines import Engines
from streamsrv.runtime.file_run import FileRun, FileServices, Heard
from streamsrv.runtime.ongoing import Ongoing
from streamsrv.runtime.settings import SessionSettings
from streamsrv.runtime.uploads import Uploads
from streamsrv.stores.base import Job, JobError, JobState, StreamKey, StreamStats

MAX_ATTEMPTS = 3
"""Times a file may lose its decoder; then its job has failed."""
MAX_STARTS = 5
"""Times the server may die while it hears one file and brings it no further; then its job has failed."""
SUSPECT_STARTS = 2
"""So often, and it is heard by itself from then on: that tells the file that kills from those beside it."""
FURTHER_MS = 10_000
"""Audio that must be stored for a file to have come further."""
PAUSE_S = 1.0
"""Pause while the store or the decoders cannot take more."""
LEAVE_S = 2.0
"""How long a server that stops waits for the store to learn that it stopped in good order."""

T = TypeVar("T")
log = telemetry.logger("jobs")


class Means(NamedTuple):
    """What all jobs work with."""

    services: FileServices
    engines: Engines
    decoders: Decoders
    session: SessionSettings
    uploads: Uploads
    longest_s: float
    """Longest recording."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it is at this moment."""

    job: Job
    audio_ms: int
    duration_ms: int | None = None
    """As decoded; of a job that is not over, as the file's header claims."""
    share: float | None = None
    """0.0 to 1.0; ``None`` while the file's length is not known."""
    eta_s: float | None = None


class Work:
    """A job that is not over."""

    def __init__(self, means: Means, job: Job) -> None:
        self.job = job
        """As it is recorded."""
        self.task: asyncio.Task[None] | None = None
        """Set when its turn has come."""
        self.cancelled = False
        """Somebody wants its end; only then its task is cancelled while the server lives."""
        self.over = asyncio.Event()
        self.suspect = job.starts >= SUSPECT_STARTS
        """The server died over and over while it heard this, and perhaps because of it."""
        self._means = means
        self._counted = False
        self._waiting = Ongoing(log.bind(job=job.id), "job.waits", over="job.waits_no_more", level="info")
        self._run: FileRun | None = None

    @property
    def progress(self) -> Progress:
        """How far it is, and how long it will take at the pace of this attempt."""
        run, job = self._run, self.job
        if run is None:
            return Progress(job=job, audio_ms=job.audio_ms, duration_ms=job.duration_ms)
        heard_s = run.heard / RATE_HZ
        if not run.duration_s:
            return Progress(job=job, audio_ms=round(heard_s * 1000))
        share = min(1.0, heard_s / run.duration_s)
        fresh_s = heard_s - run.resume_at / RATE_HZ
        eta_s = None
        if run.begun_at is not None and fresh_s > 0:
            pace = fresh_s / max(1e-3, self._means.services.now() - run.begun_at)
            eta_s = max(0.0, run.duration_s - heard_s) / pace
        return Progress(
            job=job,
            audio_ms=round(heard_s * 1000),
            duration_ms=round(run.duration_s * 1000),
            share=share,
            eta_s=eta_s,
        )

    async def to_the_end(self) -> None:
        """Hear it.  A task that is cancelled leaves it to the next process, unless ``cancelled`` was set."""
        try:
            await self._to_the_end()
        except NotFound:  # another server deleted its interview, and this record with it
            await self._means.uploads.remove(self.job.spooled)
            log.info("job.deleted", job=self.job.id)
            self.over.set()

    async def _to_the_end(self) -> None:
        try:
            await (self._cancel() if self.cancelled else self._hear())
        except asyncio.CancelledError:
            if not self.cancelled:
                await self._uncount()
                raise
            await self._cancel()
        except Exception as error:  # a fault of ours must not leave a job that nobody ends
            log.error("job.failed_inside", error=error, job=self.job.id)
            await self._conclude("failed", error=_as_error(StreamsrvError("the server failed inside")))

    async def _hear(self) -> None:
        try:
            await self._count()
            heard = await self._heard()
        except StreamEnded:
            duration_s = (self._run.duration_s if self._run is not None else None) or 0.0
            return await self._conclude("done", audio_ms=round(duration_s * 1000), duration_ms=round(duration_s * 1000))
        except Stopped:
            return await self._cancel()
        except StreamsrvError as error:
            await self._end_stream()
            return await self._conclude("failed", error=_as_error(error))
        state: JobState = "done" if heard.failure is None else "failed"
        await self._conclude(
            state,
            audio_ms=heard.audio_ms,
            duration_ms=heard.audio_ms,
            warnings=self.job.warnings + heard.warnings,
            error=None if heard.failure is None else _as_error(heard.failure),
        )

    async def _count(self) -> None:
        """Record that it begins, before anything of it is touched: what kills the server must not be tried for ever.

        Raises:
            ServerLost: it was tried often enough.
        """
        job, services = self.job, self._means.services
        streams = await _persistently(lambda: services.store.streams(job.interview))
        restarts = next((stream.restarts for stream in streams if stream.id == job.stream), (0,))
        reached_ms = min(restarts) * 1000 // RATE_HZ
        further = reached_ms >= job.reached_ms + FURTHER_MS
        starts = 0 if further else job.starts
        if starts >= MAX_STARTS:
            raise ServerLost(f"the server stopped {starts} times while it heard this file, and came no further")
        self.suspect = starts >= SUSPECT_STARTS
        self._counted = True
        await self._change(
            state="running",
            started_ms=job.started_ms or services.utc_ms(),
            starts=starts + 1,
            reached_ms=reached_ms if further else job.reached_ms,
        )

    async def _uncount(self) -> None:
        """The server leaves in good order, for which the file is not to blame."""
        try:
            async with asyncio.timeout(LEAVE_S):
                if self._counted:
                    await self._change(starts=self.job.starts - 1)
        except TimeoutError:
            log.warning("job.counted", job=self.job.id, starts=self.job.starts)

    async def _heard(self) -> Heard:
        """Try until it is heard, or cannot be."""
        while True:
            job, means = self.job, self._means
            path = means.uploads.path(job.spooled)
            self._run = FileRun(means.services, means.engines, means.session, means.longest_s, job, path)
            try:
                cage = await means.decoders.cage()
                return await self._run.work(cage, begun=self._waiting.passed)
            except DecoderLost as error:
                if job.attempts + 1 >= MAX_ATTEMPTS:
                    raise
                log.warning("job.again", error=error, job=job.id, attempts=job.attempts + 1)
                await self._change(attempts=job.attempts + 1)
            except (Full, StoreUnavailable) as error:
                self._waiting.came(error.code)
                await asyncio.sleep(PAUSE_S)

    async def _cancel(self) -> None:
        await self._end_stream()
        progress = self.progress
        await self._conclude("cancelled", audio_ms=progress.audio_ms, duration_ms=progress.duration_ms)

    async def _end_stream(self) -> None:
        """The stream of a job that did not end it itself."""
        job, services = self.job, self._means.services
        for stream in await _persistently(lambda: services.store.streams(job.interview)):
            if stream.id == job.stream and stream.status == "live":
                key = StreamKey(interview=job.interview, stream=stream.id, epoch=stream.epochs[-1].epoch)
                await _persistently(
                    partial(services.store.end_stream, key, stats=StreamStats(), now_ms=services.utc_ms())
                )

    async def _conclude(self, state: JobState, **changes: object) -> None:
        """The end of a job: recorded first, then its file is deleted."""
        services = self._means.services
        await self._change(state=state, ended_ms=services.utc_ms(), **changes)
        job = self.job
        await self._means.uploads.remove(job.spooled)
        services.metrics.jobs_ended.labels(state).inc()
        code = job.error.code if job.error is not None else None
        log.info("job.ended", error=code, job=job.id, interview=job.interview, state=state, audio_ms=job.audio_ms)
        self.over.set()

    async def _change(self, **changes: object) -> None:
        job = msgspec.structs.replace(self.job, **changes)
        await _persistently(lambda: self._means.services.store.keep_job(job))
        self.job = job


async def _persistently(call: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await call()
        except StoreUnavailable:
            await asyncio.sleep(PAUSE_S)


def _as_error(error: StreamsrvError) -> JobError:
    return JobError(
        code=error.code,
        message=error.message,
        hint=error.hint,
        http_status=error.http_status,
        retryable=error.retryable or not isinstance(error, ClientFault | ServerLost),
    )
