"""Hands a session's finals and restart points to the store, in order, for as long as it takes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from streamsrv import telemetry
from streamsrv.errors import NotFound, StoreUnavailable
from streamsrv.facts import FinalKept, Outdated, Position, ProgressKept, Receipt, Settled
from streamsrv.session.effects import Keep, Note, Settle
from streamsrv.stores.base import Anchor, StreamKey, StreamStats, TranscriptStore

PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses while the store is away; the last one repeats, without end: nothing is given up."""

Job: TypeAlias = Keep | Note | Settle
log = telemetry.logger("keeper")


class Keeper:
    """One session's way into the store.

    Jobs wait in a queue that the ring bounds: a final's audio is held until it is stored, and the driver stops taking
    audio when the ring is full.  A task runs only while there are jobs.

    Args:
        restarts: per channel, as the store has them.
        stored: takes the receipts.
        troubled: told when the store is away, and when it is back.
        stats: asked once, at the end of the stream.
    """

    def __init__(
        self,
        store: TranscriptStore,
        key: StreamKey,
        *,
        restarts: tuple[Position, ...],
        stored: Callable[[Receipt], None],
        troubled: Callable[[bool], None],
        stats: Callable[[], StreamStats],
        utc_ms: Callable[[], int],
    ) -> None:
        self.restarts = restarts
        """What the store has; anchors that go in on their own leave it as it is."""
        self._store = store
        self._key = key
        self._stored = stored
        self._troubled = troubled
        self._stats = stats
        self._utc_ms = utc_ms
        self._jobs: deque[Job] = deque()
        self._anchors: list[Anchor] = []
        self._task: asyncio.Task[None] | None = None

    def put(self, job: Job) -> None:
        """Take a job; never waits."""
        self._jobs.append(job)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    def anchor(self, anchor: Anchor) -> None:
        """Store this anchor before the next final, or with the next restart points."""
        self._anchors.append(anchor)

    def close(self) -> None:
        """Drop what waits: the stream is over, or a newer epoch has it."""
        self._jobs.clear()
        if self._task is not None and self._task is not _current():
            self._task.cancel()
        self._task = None

    async def _work(self) -> None:
        while self._jobs:
            receipt = await self._until_done(self._jobs[0])
            if not self._jobs:  # closed meanwhile
                return
            self._jobs.popleft()
            self._stored(receipt)
        self._task = None

    async def _until_done(self, job: Job) -> Receipt:
        failures = 0
        while True:
            try:
                receipt = await self._do(job)
            except NotFound:  # the interview was deleted
                return Outdated()
            except StoreUnavailable as error:
                if failures == 0:
                    log.warning("store.away", error=error, interview=self._key.interview, stream=self._key.stream)
                    self._troubled(True)
                await asyncio.sleep(PAUSES_S[min(failures, len(PAUSES_S) - 1)])
                failures += 1
            else:
                if failures:
                    log.info("store.back", interview=self._key.interview, stream=self._key.stream, failures=failures)
                    self._troubled(False)
                return receipt

    async def _do(self, job: Job) -> Receipt:
        match job:
            case Keep(final=final):
                taken = await self._flush_anchors() and await self._store.keep_final(self._key, final)
                return FinalKept(channel=final.channel, segment=final.segment) if taken else Outdated()
            case Note(restarts=restarts):
                return ProgressKept(restarts=restarts) if await self._progress(restarts) else Outdated()
            case Settle():
                taken = await self._flush_anchors() and await self._store.end_stream(
                    self._key, stats=self._stats(), now_ms=self._utc_ms()
                )
                return Settled() if taken else Outdated()

    async def _flush_anchors(self) -> bool:
        return not self._anchors or await self._progress(self.restarts)

    async def _progress(self, restarts: tuple[Position, ...]) -> bool:
        anchors = tuple(self._anchors)
        taken = await self._store.keep_progress(self._key, restarts, anchors)
        del self._anchors[: len(anchors)]
        self.restarts = restarts
        return taken


def _current() -> asyncio.Task[None] | None:
    return asyncio.current_task()
