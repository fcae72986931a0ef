"""``MongoStore``: the contracts of ``stores.base`` and ``stores.handoff`` on a MongoDB server."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, TypeVar

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from streamsrv import telemetry
from streamsrv.commands import Options
from streamsrv.errors import StoreUnavailable
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
from streamsrv.stores.mongo import (
    client,
    deletes,
    epochs,
    failures,
    finals,
    handoffs,
    jobs,
    leases,
    reads,
    streams,
)
from streamsrv.stores.mongo.batches import Batches
from streamsrv.stores.mongo.documents import Doc, Rooms
from streamsrv.stores.mongo.nodes import Nodes
from streamsrv.stores.mongo.relays import Relays, Wanted
from streamsrv.stores.mongo.settings import MongoSettings
from streamsrv.stores.mongo.writing import Writing

T = TypeVar("T")
log = telemetry.logger("mongo")

MEND_EVERY_S = 60.0
"""Pause between two looks for interviews that should be complete."""
FORGET_LEASES_MS = 86_400_000
"""Leases whose holder gave no sign for so long before a start are deleted by it."""


class MongoStore:
    """Interviews, streams and finals in MongoDB, shared by all nodes that name the same database.

    Args:
        settings: where, and the bounds.
        node: this node's name, the same over restarts; jobs and streams are told apart by it.  Omitted: a new one.
        server: whether it is a node; otherwise somebody who looks, counts as none, and mends nothing.
        observe: told the seconds of each batch of finals, on the event loop.

    Belongs to the event loop that opened it.
    """

    def __init__(
        self,
        settings: MongoSettings,
        *,
        node: str = "",
        server: bool = True,
        observe: Callable[[float], None] | None = None,
    ) -> None:
        self._settings = settings
        self._server = server
        self._node = node or f"n-{secrets.token_hex(8)}"
        self._observe = observe
        self._client: AsyncMongoClient[Doc] = client.connect(settings)
        self._rooms: Rooms = client.rooms_of(self._client, settings)
        self._nodes = Nodes(self._rooms, self._node, silent_s=settings.node_silent_s, lost_s=settings.node_lost_s)
        self._writing = Writing(self._rooms, timeout_s=settings.timeout_s)
        self._finals: Batches[finals.Keeping, bool] = Batches(self._keep, most=settings.max_waiting_writes)
        self._moves: Batches[streams.Moved, bool] = Batches(self._move_on, most=settings.max_waiting_writes)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._living: list[asyncio.Task[None]] = []
        self._open = False
        self._sinks: tuple[str, ...] = ()
        self._relays = Relays(self._rooms, self._writing, most=settings.max_waiting_writes)
        self._known_jobs: jobs.Known = {}
        self._stored: Callable[[str], Any] = _nobody

    async def open(self) -> None:
        """As the contract says; waits ``start_within_s`` for a server that is away."""
        try:
            await client.patiently(self._settings, self._appear)
        except BaseException:
            await self._client.close()
            raise
        self._open = True
        if self._server:
            lives = (self._nodes.live(), self._writing.watch(), self._mend())
            self._living = [asyncio.create_task(one) for one in lives]

    async def _appear(self) -> None:
        await client.prepare(self._rooms)
        if self._server:
            await self._nodes.beat()
        await self._nodes.look()
        if self._server:
            await leases.tidy(self._rooms, node=self._node, before_ms=_now_ms() - FORGET_LEASES_MS)

    async def close(self) -> None:
        self._open = False
        for task in self._living:
            task.cancel()
        await asyncio.gather(*self._living, return_exceptions=True)
        self._writing.stop()
        await self._finals.finish()
        await self._moves.finish()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._client.close()

    async def _mend(self) -> None:
        """Complete what a server that died left half done, now and from time to time, until cancelled."""
        while True:
            try:
                await streams.complete_interrupted(
                    self._rooms, now_ms=_now_ms(), order=self._order(), completed=self._stored
                )
            except PyMongoError as error:
                log.debug("mongo.not_mended", error=type(error).__name__)
            failures.heed_cancellation()
            await asyncio.sleep(MEND_EVERY_S)

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it to its end, also when the caller stops waiting.

        Raises:
            StoreUnavailable: closed, or MongoDB cannot be used.
        """
        if not self._open:
            work.close()
            raise StoreUnavailable("the store is closed")
        return await asyncio.shield(self._begin(work))

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(_translated(work))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone, and then nobody else asks

    def _order(self) -> handoffs.Order | None:
        return handoffs.Order(self._sinks, _now_ms()) if self._sinks else None

    # --- streams and finals -----------------------------------------------------------------------------------------

    async def begin_stream(
        self, *, interview: str, stream: str, token_hash: bytes, options: Options, engine: str, now_ms: int
    ) -> Stream:
        """As the contract says; the same call again finds the stream recorded.

        Raises:
            Conflict: another stream has this id.
        """
        new = streams.New(interview, stream, token_hash, options, engine, self._node, now_ms)
        return await self._run(streams.begin(self._rooms, new))

    async def configure_stream(self, key: StreamKey, options: Options) -> None:
        await self._run(streams.configure(self._rooms, key, options))

    async def resume_stream(self, stream: str, token_hash: bytes, *, now_ms: int) -> Resumed:
        return await self._run(epochs.resume(self._rooms, stream, token_hash, self._node))

    async def keep_final(self, key: StreamKey, final: Final) -> bool:
        """As the contract says.

        Raises:
            NotFound: no such stream in this interview.
            ValueError: a confidence is no number, or another final is kept under this key.
        """
        finals.check(final)
        self._require_open()
        taken = await self._finals.put(finals.Keeping(key, final, self._order()))
        self._stored(key.interview)
        return taken

    async def keep_progress(self, key: StreamKey, restarts: tuple[Position, ...], anchors: tuple[Anchor, ...]) -> bool:
        self._require_open()
        return await self._moves.put(streams.Moved(key, restarts, anchors))

    def hurry(self) -> None:
        """Nothing waits for company here."""

    async def end_stream(self, key: StreamKey, *, stats: StreamStats, now_ms: int) -> bool:
        end = streams.end(self._rooms, key, stats=stats, now_ms=now_ms, order=self._order(), completed=self._stored)
        return await self._run(end)

    def _require_open(self) -> None:
        if not self._open:
            raise StoreUnavailable("the store is closed")

    async def _keep(self, batch: Sequence[finals.Keeping]) -> list[bool | Exception]:
        begun = time.perf_counter()
        with failures.translated():
            answers = await finals.keep(self._rooms, self._writing, batch)
        if self._finals.idle:
            self._begin(self._writing.tidy())
        if self._observe is not None:
            self._observe(time.perf_counter() - begun)
        return answers

    async def _move_on(self, batch: Sequence[streams.Moved]) -> list[bool | Exception]:
        with failures.translated():
            return await streams.move_on(self._rooms, batch)

    # --- reading ----------------------------------------------------------------------------------------------------

    async def interview(self, interview: str) -> Interview | None:
        return await self._run(reads.interview(self._rooms, interview))

    async def streams(self, interview: str) -> tuple[Stream, ...]:
        return await self._run(reads.streams(self._rooms, interview))

    async def finals(self, interview: str) -> tuple[StoredFinal, ...]:
        return await self._run(reads.finals(self._rooms, interview))

    async def left_streams(self) -> tuple[StreamKey, ...]:
        return await self._run(self._nodes.left_streams())

    async def place_of(self, interview: str, name: FinalName) -> int:
        return await self._run(reads.place_of(self._rooms, interview, name))

    async def finals_since(self, interview: str, place: int, *, limit: int) -> tuple[PlacedFinal, ...]:
        return await self._run(reads.finals_since(self._rooms, self._writing, interview, place=place, limit=limit))

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
        return await self._run(reads.interviews(self._rooms, wanted))

    async def delete_interview(self, interview: str) -> bool:
        found = await self._run(deletes.delete(self._rooms, interview, now_ms=_now_ms(), order=self._order()))
        if found:
            self._stored(interview)
        return found

    async def expired(self, before_ms: int, *, limit: int) -> tuple[str, ...]:
        return await self._run(reads.expired(self._rooms, before_ms, limit))

    # --- jobs -------------------------------------------------------------------------------------------------------

    async def keep_job(self, job: Job) -> None:
        await self._run(jobs.keep(self._rooms, job, self._node, self._known_jobs))

    async def job(self, job: str) -> Job | None:
        return await self._run(jobs.read(self._rooms, job))

    async def open_jobs(self) -> tuple[Job, ...]:
        return await self._run(jobs.unfinished(self._rooms, self._node, self._known_jobs))

    # --- handing on -------------------------------------------------------------------------------------------------

    def hand_to(self, sinks: tuple[str, ...], *, stored: Callable[[str], None] | None = None) -> None:
        """As the contract says.

        Raises:
            ValueError: more than ``handoffs.MAX_SINKS``.
        """
        if len(sinks) > handoffs.MAX_SINKS:
            raise ValueError(f"{len(sinks)} sinks, and a store serves {handoffs.MAX_SINKS}")
        self._sinks = sinks
        self._stored = stored or _nobody

    async def due(self, sink: str, *, after: str = "", limit: int) -> tuple[str, ...]:
        return await self._run(handoffs.due(self._rooms, sink, after=after, limit=limit))

    async def waiting(self, sink: str, interview: str, *, limit: int) -> Waiting:
        return await self._run(self._relays.waiting(Wanted(sink, interview, limit)))

    async def handed(self, sink: str, interview: str, places: Collection[int]) -> None:
        await self._run(self._relays.handed(sink, interview, places))

    async def refused(self, sink: str, interview: str, place: int, *, reason: str, dead: bool, now_ms: int) -> None:
        refusal = handoffs.Refusal(sink, interview, place, reason, dead, now_ms)
        await self._run(handoffs.refused(self._rooms, refusal))

    async def lease(self, sink: str, interview: str, wanted: Lease, *, over: Lease | None = None) -> Lease | None:
        return await self._run(self._relays.lease(leases.Wish(sink, interview, wanted, over)))

    async def release(self, sink: str, interview: str, *, node: str) -> None:
        await self._run(self._relays.release(leases.Return(sink, interview, node)))

    async def figures(self) -> tuple[SinkFigures, ...]:
        return await self._run(handoffs.figures(self._rooms))

    async def dead_letters(self, *, sink: str | None = None, after: int = 0, limit: int) -> tuple[DeadLetter, ...]:
        return await self._run(handoffs.dead_letters(self._rooms, sink=sink, after=after, limit=limit))

    async def retry(self, *, sink: str | None = None, interview: str | None = None) -> int:
        return await self._run(handoffs.retry(self._rooms, sink=sink, interview=interview))


async def _translated(work: Coroutine[Any, Any, T]) -> T:
    with failures.translated():
        return await work


def _nobody(interview: str) -> None:
    """Nobody wants to know."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
