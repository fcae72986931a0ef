"""Uploaded files as jobs: queued in order, a few heard at once, each exactly once, also across a restart.

What is promised stands in the store and in the uploads folder; this is the part of it that is at work.  A job that a
dead process left running goes on from its stream's acknowledged restart point, in the stream's next epoch.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque

from streamsrv import telemetry
from streamsrv.commands import Options
from streamsrv.errors import Conflict, Draining, Full, NotFound
from streamsrv.runtime.decoders import Decoders
from streamsrv.runtime.engines import Engines, wishes_of
from streamsrv.runtime.file_run import FileServices
from streamsrv.runtime.job_work import Means, Progress, Work
from streamsrv.runtime.settings import SessionSettings, UploadSettings
from streamsrv.runtime.unsure import Unsure
from streamsrv.runtime.uploads import Spool, Uploads
from streamsrv.stores.base import OPEN_JOBS, Job

RETRY_AFTER_S = 30.0
"""Told to those refused because the queue is full."""
MAX_FILENAME = 255
"""Characters of a client's file name that are kept."""

log = telemetry.logger("jobs")


class Jobs:
    """The jobs of this server.

    Args:
        services: store, metrics, clocks.
        engines: what hears.
        decoders: what decodes.
        session: the bounds of sessions.
        settings: the bounds of uploads.
        uploads: where files lie.
        longest_s: longest recording.
    """

    def __init__(
        self,
        services: FileServices,
        engines: Engines,
        decoders: Decoders,
        *,
        session: SessionSettings,
        settings: UploadSettings,
        uploads: Uploads,
        longest_s: float,
    ) -> None:
        self.uploads = uploads
        self._services = services
        self._engines = engines
        self._settings = settings
        self._means = Means(services, engines, decoders, session, uploads, longest_s)
        self._works: dict[str, Work] = {}
        """Jobs that are not over, queued ones included."""
        self._queue: deque[Work] = deque()
        self._running: set[Work] = set()
        self._unsure = Unsure(services.store, services.utc_ms)
        self._receiving = 0
        self._closing = self._draining = False

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Go on with what a process before left, oldest first.

        Raises:
            StoreUnavailable: the jobs cannot be read; start again.
        """
        left = await self._services.store.open_jobs()
        for job in left:
            if job.id not in self._works:  # an attempt before got so far
                self._enter(job)
        await self.sweep()
        if left:
            log.info("jobs.found", jobs=len(left))
        self._pump()

    async def sweep(self) -> None:
        """Delete files that belong to no job any more: another server deleted it with its interview, a crash left them,
        or they could not be deleted when their job ended.

        Raises:
            StoreUnavailable: come back later.
        """
        for work in [work for work in self._works.values() if work.task is None]:
            if await self._services.store.job(work.job.id) is None and work.task is None:
                self._stop(work)
        swept = await self.uploads.sweep(lambda: {work.job.spooled for work in self._works.values()})
        if swept:
            log.info("uploads.swept", files=swept)

    def drain(self) -> None:
        """Take no newcomers; those that are here go on."""
        self._draining = True

    async def close(self) -> None:
        """Stop where everything is; the next process goes on from there."""
        self._closing = True
        tasks = [work.task for work in self._running if work.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, self._unsure.close(), return_exceptions=True)

    # --- newcomers --------------------------------------------------------------------------------------------------

    def receive(self) -> Receiving:
        """Hold a place for a file that is about to come: ``with jobs.receive(): ...``.

        Raises:
            Draining, Full: no file is taken at the moment.
        """
        if self._closing or self._draining:
            raise Draining("this server is going away", hint="send the file again", retry_after_s=1.0)
        if len(self._queue) + self._receiving >= self._settings.max_waiting + self._idle:
            raise Full(f"{self._settings.max_waiting} files wait to be heard already", retry_after_s=RETRY_AFTER_S)
        if self._receiving >= self._settings.max_receiving:
            raise Full(f"{self._settings.max_receiving} files are being received already", retry_after_s=RETRY_AFTER_S)
        return Receiving(self)

    @property
    def _idle(self) -> int:
        return self._settings.max_running - len(self._running)

    def hold(self, change: int) -> None:
        """One file more, or less, is being received."""
        self._receiving += change
        self._count()

    def check(self, options: Options) -> None:
        """See whether these options can be served.

        Raises:
            BadRequest, UnsupportedLanguage: they cannot.
            Forbidden: it shall be recorded, and this server makes no recordings.
        """
        self._services.check(options)
        engine = self._engines.choose(options.engine)
        self._engines.check(engine, language=options.language, wishes=wishes_of(options))

    async def add(
        self, interview: str, options: Options, spool: Spool, filename: str | None, warnings: tuple[str, ...] = ()
    ) -> Job:
        """Take a file, durably; it is heard when its turn comes.

        Args:
            spool: finished; it belongs to the job from now on.
            warnings: sentences about the request, kept with the job.

        Raises:
            BadRequest, UnsupportedLanguage: the options cannot be served.
            StoreUnavailable: it cannot be recorded; the file is still the caller's.
        """
        self.check(options)
        job = Job(
            id=f"job-{secrets.token_hex(8)}",
            interview=interview,
            options=options,
            engine=self._engines.choose(options.engine).about.name,
            stream=f"st-{secrets.token_hex(8)}",
            token_hash=secrets.token_bytes(32),
            spooled=spool.name,
            filename=None if filename is None else filename[:MAX_FILENAME],
            size_bytes=spool.size,
            warnings=warnings,
            created_ms=self._services.utc_ms(),
        )
        try:
            await self._services.store.keep_job(job)
        except BaseException:  # it may be recorded all the same, and would wait for ever, without its file
            self._unsure.add(job)
            raise
        self._enter(job)
        self._pump()
        log.info("job.queued", job=job.id, interview=interview, bytes=job.size_bytes, waiting=len(self._queue))
        return job

    # --- what is asked about jobs -----------------------------------------------------------------------------------

    async def progress(self, name: str) -> Progress:
        """How a job stands.

        Raises:
            NotFound: there is none of this name.
        """
        work = self._works.get(name)
        if work is not None and work.job.state in OPEN_JOBS:
            return work.progress
        if work is not None:
            await work.over.wait()  # whoever learns that a job has ended finds its file gone
        job = work.job if work is not None else await self._services.store.job(name)
        if job is None:
            raise NotFound("there is no such job", hint="its name is in the answer to the upload")
        share = 1.0 if job.state == "done" else None
        return Progress(job=job, audio_ms=job.audio_ms, duration_ms=job.duration_ms, share=share)

    async def wait(self, name: str, within_s: float) -> Progress:
        """As ``progress``, when the job is over or ``within_s`` seconds have passed."""
        work = self._works.get(name)
        if work is not None and within_s > 0:
            try:
                async with asyncio.timeout(within_s):
                    await work.over.wait()
            except TimeoutError:
                return work.progress
        return await self.progress(name)

    async def cancel(self, name: str) -> Progress:
        """End a job where it is; what was stored of it stays.  One that is over stays as it is.

        Raises:
            NotFound: there is none of this name.
            Conflict: another server has its file.
        """
        work = self._works.get(name)
        if work is not None and not self._closing:
            self._stop(work)
            await work.over.wait()
        progress = await self.progress(name)
        if work is None and not self._closing and progress.job.state in OPEN_JOBS:
            raise Conflict(
                "another server has the file of this job",
                hint="ask that server, or delete the interview, here or there",
            )
        return progress

    def holds(self, interview: str) -> bool:
        """Whether a file waits, or is heard, for this interview."""
        return any(work.job.interview == interview for work in self._works.values())

    async def forget(self, interview: str) -> None:
        """End all jobs of an interview that is being deleted; their files are gone when this returns."""
        works = [work for work in self._works.values() if work.job.interview == interview]
        for work in works:
            self._stop(work)
        for work in works:
            await work.over.wait()

    def _stop(self, work: Work) -> None:
        if work.cancelled:
            return
        work.cancelled = True
        if work.task is None:
            self._queue.remove(work)
            self._begin(work)
        else:
            work.task.cancel()

    # --- work -------------------------------------------------------------------------------------------------------

    def _enter(self, job: Job) -> None:
        work = Work(self._means, job)
        self._works[job.id] = work
        self._queue.append(work)

    def _pump(self) -> None:
        while self._queue and self._idle > 0 and not self._closing and not self._alone(self._queue[0]):
            self._begin(self._queue.popleft())
        self._count()

    def _alone(self, work: Work) -> bool:
        """Whether it must wait because one of two is a suspect: heard by itself, it is found guilty or innocent."""
        return any(one.suspect or work.suspect for one in self._running)

    def _begin(self, work: Work) -> None:
        self._running.add(work)
        work.task = asyncio.create_task(self._work(work), name="job")

    async def _work(self, work: Work) -> None:
        try:
            await work.to_the_end()
            self._works.pop(work.job.id, None)
        finally:
            self._running.discard(work)
            self._pump()

    def _count(self) -> None:
        gauge = self._services.metrics.jobs
        gauge.labels("receiving").set(self._receiving)
        gauge.labels("queued").set(len(self._queue))
        gauge.labels("running").set(len(self._running))


class Receiving:
    """A held place; see ``Jobs.receive``."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def __enter__(self) -> None:
        self._jobs.hold(1)

    def __exit__(self, *_: object) -> None:
        self._jobs.hold(-1)
