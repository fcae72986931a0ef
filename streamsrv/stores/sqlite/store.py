"""``SqliteStore``: the contract of ``stores.base`` on the writer and the readers."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from streamsrv import structs
from streamsrv.commands import Options
from streamsrv.errors import SetupError
from streamsrv.events import Final
from streamsrv.facts import Position
from streamsrv.stores.base import (
    Anchor,
    FinalName,
    Interview,
    InterviewStatus,
    Job,
    ListedInterview,
    ListPlace,
    PlacedFinal,
    Resumed,
    StoredFinal,
    Stream,
    StreamKey,
    StreamStats,
)
from streamsrv.stores.handoff import DeadLetter, Lease, SinkFigures, Waiting
from streamsrv.stores.sqlite import deletes, handoffs, jobs, reads, rows, schema, writes
from streamsrv.stores.sqlite.lock import ServerLock
from streamsrv.stores.sqlite.readers import Readers
from streamsrv.stores.sqlite.settings import SqliteSettings
from streamsrv.stores.sqlite.writer import Writer


class SqliteStore:
    """Interviews, streams and finals in one SQLite file, ``data_dir/streamsrv.db``.

    Args:
        settings: where, and the bounds.
        server: take the server's role on the data directory: one at a time, makes and migrates the database.  Without
            it the store only reads, beside a running server or after it.
        observe: told the seconds of each write transaction, on the event loop.

    Belongs to the event loop that opened it.
    """

    def __init__(
        self, settings: SqliteSettings, *, server: bool = True, observe: Callable[[float], None] | None = None
    ) -> None:
        self._path = Path(settings.data_dir) / schema.DATABASE_NAME
        self._busy_timeout_s = settings.busy_timeout_s
        self._opened = False
        self._sinks = ""
        """Names as a JSON list; empty when nothing is handed on."""
        self._stored: Callable[[str], None] = _nobody
        self._lock = ServerLock(self._path.parent) if server else None
        self._readers = Readers(partial(self._connect, read_only=True))
        self._writer = Writer(
            prepare=self._take_over if server else self._look,
            connect=partial(self._connect, read_only=not server),
            max_waiting=settings.max_waiting_writes,
            observe=observe,
        )

    @property
    def path(self) -> Path:
        """The database file."""
        return self._path

    async def open(self) -> None:
        if self._opened:
            raise RuntimeError("a store is opened once; make a new one")
        self._opened = True
        structs.learn()  # readers are threads
        try:
            await self._writer.start()
        except BaseException:
            self._release()
            raise
        self._readers.start()

    async def close(self) -> None:
        await self._writer.stop()
        await self._readers.stop()
        if self._lock is not None and self._lock.held:
            await asyncio.to_thread(schema.fold, self._path, busy_timeout_s=self._busy_timeout_s)
        self._release()

    async def begin_stream(
        self, *, interview: str, stream: str, token_hash: bytes, options: Options, engine: str, now_ms: int
    ) -> Stream:
        """As the contract says; the same call again finds the stream recorded.

        Raises:
            Conflict: another stream has this id.
        """
        new = writes.New(interview, stream, token_hash, options, engine, now_ms)
        return await self._writer.submit(partial(writes.begin_stream, new=new))

    async def configure_stream(self, key: StreamKey, options: Options) -> None:
        await self._writer.submit(partial(writes.configure_stream, key=key, options=options))

    async def resume_stream(self, stream: str, token_hash: bytes, *, now_ms: int) -> Resumed:
        begun = await self._writer.submit(partial(writes.resume_stream, stream=stream, token_hash=token_hash))
        # What is older than the new epoch changes no more: it need not be read inside the writer.
        finals = await self._readers.run(partial(reads.finals_before, stream=begun.stream))
        key = StreamKey(interview=begun.stream.interview, stream=stream, epoch=begun.stream.epochs[-1].epoch)
        return Resumed(stream=begun.stream, key=key, starts=begun.starts, finals=finals)

    async def keep_final(self, key: StreamKey, final: Final) -> bool:
        """As the contract says.

        Raises:
            NotFound: no such stream in this interview.
            ValueError: a confidence is no number, or another final is kept under this key.
        """
        place = (final.channel, final.segment, final.utterance, final.start, final.stop)
        document, order = rows.final_to(final), self._order()
        work = partial(writes.keep_final, key=key, place=place, document=document, order=order)
        taken = await self._writer.submit(work, single=order is None)
        self._stored(key.interview)
        return taken

    async def keep_progress(self, key: StreamKey, restarts: tuple[Position, ...], anchors: tuple[Anchor, ...]) -> bool:
        text = rows.to_json(restarts)
        if anchors:
            work = partial(writes.keep_progress_and_anchors, key=key, restarts=text, anchors=anchors)
            return await self._writer.submit(work, urgent=False)
        return await self._writer.submit(
            partial(writes.keep_progress, key=key, restarts=text), single=True, urgent=False
        )

    def hurry(self) -> None:
        self._writer.hurry()

    async def end_stream(self, key: StreamKey, *, stats: StreamStats, now_ms: int) -> bool:
        work = partial(writes.end_stream, key=key, stats=stats, now_ms=now_ms, order=self._order())
        taken = await self._writer.submit(work)
        self._stored(key.interview)
        return taken

    async def interview(self, interview: str) -> Interview | None:
        return await self._readers.run(partial(reads.interview, name=interview))

    async def streams(self, interview: str) -> tuple[Stream, ...]:
        return await self._readers.run(partial(reads.streams, name=interview))

    async def finals(self, interview: str) -> tuple[StoredFinal, ...]:
        return await self._readers.run(partial(reads.finals, name=interview))

    async def left_streams(self) -> tuple[StreamKey, ...]:
        return await self._readers.run(reads.left_streams)

    async def place_of(self, interview: str, name: FinalName) -> int:
        return await self._readers.run(partial(reads.place_of, name=interview, wanted=name))

    async def finals_since(self, interview: str, place: int, *, limit: int) -> tuple[PlacedFinal, ...]:
        return await self._readers.run(partial(reads.finals_since, name=interview, place=place, limit=limit))

    async def interviews(
        self,
        *,
        status: InterviewStatus | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        after: ListPlace | None = None,
        limit: int,
    ) -> tuple[ListedInterview, ...]:
        wanted = reads.Wanted(status, since_ms, until_ms, after, limit)
        return await self._readers.run(partial(reads.interviews, wanted=wanted))

    async def delete_interview(self, interview: str) -> bool:
        doom = partial(deletes.doom, interview=interview, now_ms=_now_ms(), order=self._order())
        if not await self._writer.submit(doom):
            return False
        self._stored(interview)
        while not await self._writer.submit(partial(deletes.bite, interview=interview)):
            pass
        return True

    async def expired(self, before_ms: int, *, limit: int) -> tuple[str, ...]:
        return await self._readers.run(partial(reads.expired, before_ms=before_ms, limit=limit))

    async def keep_job(self, job: Job) -> None:
        await self._writer.submit(partial(jobs.keep, job=job))

    async def job(self, job: str) -> Job | None:
        return await self._readers.run(partial(jobs.read, job=job))

    async def open_jobs(self) -> tuple[Job, ...]:
        return await self._readers.run(jobs.unfinished)

    # --- handing on -------------------------------------------------------------------------------------------------

    def hand_to(self, sinks: tuple[str, ...], *, stored: Callable[[str], None] | None = None) -> None:
        self._sinks = rows.to_json(sinks) if sinks else ""
        self._stored = stored or _nobody

    def _order(self) -> handoffs.Order | None:
        return handoffs.Order(self._sinks, _now_ms()) if self._sinks else None

    async def due(self, sink: str, *, after: str = "", limit: int) -> tuple[str, ...]:
        return await self._readers.run(partial(handoffs.due, sink=sink, after=after, limit=limit))

    async def waiting(self, sink: str, interview: str, *, limit: int) -> Waiting:
        return await self._readers.run(partial(handoffs.waiting, sink=sink, interview=interview, limit=limit))

    async def handed(self, sink: str, interview: str, places: Collection[int]) -> None:
        await self._writer.submit(partial(handoffs.handed, sink=sink, interview=interview, places=places), single=True)

    async def refused(self, sink: str, interview: str, place: int, *, reason: str, dead: bool, now_ms: int) -> None:
        refusal = handoffs.Refusal(sink, interview, place, reason, dead, now_ms)
        await self._writer.submit(partial(handoffs.refused, refusal=refusal), single=True)

    async def lease(self, sink: str, interview: str, wanted: Lease, *, over: Lease | None = None) -> Lease | None:
        work = partial(handoffs.lease, sink=sink, interview=interview, wanted=wanted, over=over)
        return await self._writer.submit(work, single=True)

    async def release(self, sink: str, interview: str, *, node: str) -> None:
        work = partial(handoffs.release, sink=sink, interview=interview, node=node)
        await self._writer.submit(work, single=True, urgent=False)

    async def figures(self) -> tuple[SinkFigures, ...]:
        return await self._readers.run(handoffs.figures)

    async def dead_letters(self, *, sink: str | None = None, after: int = 0, limit: int) -> tuple[DeadLetter, ...]:
        return await self._readers.run(partial(handoffs.dead_letters, sink=sink, after=after, limit=limit))

    async def retry(self, *, sink: str | None = None, interview: str | None = None) -> int:
        return await self._writer.submit(partial(handoffs.retry, sink=sink, interview=interview), single=True)

    # --- in the writer's thread -------------------------------------------------------------------------------------

    def _take_over(self) -> None:
        """Take the server's role and make the database ready.

        Raises:
            SetupError: the directory cannot be used, has a server, or holds a database that cannot be used.
        """
        try:
            schema.create_folder(self._path.parent)
            if self._lock is not None:
                self._lock.acquire()
            schema.create_file(self._path)
        except OSError as error:
            raise SetupError(
                f"cannot use the data directory {self._path.parent}: {error.strerror}",
                hint="make it writable for this user, or choose another data_dir",
            ) from error
        schema.prepare(self._path, busy_timeout_s=self._busy_timeout_s, tidy=handoffs.tidy)

    def _look(self) -> None:
        schema.check(self._path, busy_timeout_s=self._busy_timeout_s)

    def _connect(self, *, read_only: bool) -> sqlite3.Connection:
        return schema.connect(self._path, busy_timeout_s=self._busy_timeout_s, read_only=read_only)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()


def _nobody(interview: str) -> None:
    """Nobody wants to know."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
