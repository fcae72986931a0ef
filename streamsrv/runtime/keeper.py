"""Hands a session's finals and restart points to the store, in order, for as long as it takes.

While the store is away, what waits goes into this node's spool as well: a final is then durable, may be shown, and
still goes into the store in its turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeAlias

from streamsrv.errors import NotFound, Stopped, StoreUnavailable
from streamsrv.facts import FinalKept, Outdated, Position, ProgressKept, Receipt, Settled
from streamsrv.runtime.spool import Spool
from streamsrv.runtime.spooling import lines
from streamsrv.runtime.spooling.page import Page
from streamsrv.session.effects import Keep, Note, Settle
from streamsrv.stores.base import Anchor, StreamKey, StreamStats, TranscriptStore

PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses while the store is away; the last one repeats, without end: nothing is given up."""
PATIENCE_S = 1.0
"""A store that has not answered for so long is away, whatever it does later."""

Job: TypeAlias = Keep | Note | Settle


class Means(Protocol):
    """What a keeper works with."""

    @property
    def store(self) -> TranscriptStore: ...
    @property
    def spool(self) -> Spool: ...
    def utc_ms(self) -> int: ...


class _Waiting:
    """A job that the store has not done."""

    __slots__ = ("job", "spooled", "told")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.spooled = False
        """It is in the spool, durable."""
        self.told = False
        """Its receipt was given."""


class Keeper:
    """One session's way into the store.

    Jobs wait in a queue that the ring bounds: a final's audio is held until it is durable, and the driver stops taking
    audio when the ring is full; those that are durable in the spool are bounded by it.  A task runs only while there
    are jobs.

    Args:
        means: store, spool and wall clock.
        restarts: per channel, as the store has them.
        spools: whether the spool is used: somebody waits for the words.
        stored: takes the receipts.
        troubled: told when the store is away, and when it is back.
        warn: told, once for each time the store is away, that the spool takes no more.
        gone: told that the interview was deleted, perhaps by another node: nothing more of it is kept.
        stats: asked once, at the end of the stream.
    """

    def __init__(
        self,
        means: Means,
        key: StreamKey,
        *,
        restarts: tuple[Position, ...],
        spools: bool,
        stored: Callable[[Receipt], None],
        troubled: Callable[[bool], None],
        warn: Callable[[str, str], None],
        gone: Callable[[Stopped], None],
        stats: Callable[[], StreamStats],
    ) -> None:
        self.restarts = restarts
        """What the store has; anchors that go in on their own leave it as it is."""
        self._store = means.store
        self._store_away = means.spool.store_away
        self._spool = means.spool if spools else None
        self._key = key
        self._stored = stored
        self._troubled = troubled
        self._warn = warn
        self._gone = gone
        self._stats = stats
        self._utc_ms = means.utc_ms
        self._jobs: deque[_Waiting] = deque()
        self._anchors: list[Anchor] = []
        self._anchors_spooled = 0
        self._away = self._warned = self._closed = False
        self._page: Page | None = None
        self._pages = 0
        self._batch: list[_Waiting] = []
        """On its way into the spool."""
        self._written = self._failed = 0
        self._moved = asyncio.Event()
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def put(self, job: Job) -> None:
        """Take a job; never waits."""
        self._jobs.append(_Waiting(job))
        if not isinstance(job, Note):  # what goes before it must not wait for company
            self._store.hurry()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())
        elif self._away:
            self._put_by()

    def anchor(self, anchor: Anchor) -> None:
        """Store this anchor before the next final, or with the next restart points."""
        self._anchors.append(anchor)

    def close(self) -> None:
        """The stream is over, or a newer epoch has it: drop what waits; what is spooled is the spool's from now on."""
        self._closed = True
        self._jobs.clear()
        self._moved.set()
        if self._page is not None:
            self._page.leave()
            self._page = None
        if self._task is not None and self._task is not _current():
            self._task.cancel()
        self._task = None

    async def caught_up(self, within_s: float) -> None:
        """Return when the store has what was shown so far, or the session is over.

        Raises:
            StoreUnavailable: the store did not take it in time.
        """
        wanted, failed = self._written + len(self._jobs), self._failed
        self._hurry.set()
        try:
            async with asyncio.timeout(within_s):
                while self._page is not None and self._written < wanted:
                    if self._failed > failed + 1:  # the attempt under way when we came does not count
                        raise TimeoutError
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            message = "finals of this stream still wait for the store"
            raise StoreUnavailable(message, hint="resume again in a moment", retry_after_s=1.0) from None

    # --- into the store -----------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while self._jobs:
            receipt = await self._until_done(self._jobs[0].job)
            if not self._jobs:  # closed meanwhile
                return
            done = self._jobs.popleft()
            self._written += 1
            self._moved.set()
            if not self._jobs and self._page is not None and not isinstance(receipt, Outdated):
                self._page.delete()
                self._page = None
            if not done.told or isinstance(receipt, Outdated):
                done.told = True
                self._stored(receipt)
        self._task = None

    async def _until_done(self, job: Job) -> Receipt:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            alarm = loop.call_later(PATIENCE_S, self._lose)
            try:
                receipt = await self._do(job)
                if isinstance(receipt, Outdated):
                    alarm.cancel()
                    with suppress(StoreUnavailable):  # whatever the reason is, nothing more is kept
                        await self._require_stream()
            except NotFound:
                deleted = f"interview '{self._key.interview}' was deleted"
                self._gone(Stopped(deleted, hint="begin a new stream, of another interview"))
                return Outdated()
            except StoreUnavailable as error:
                self._failed += 1
                self._moved.set()
                self._lose(error)
                await self._pause(PAUSES_S[min(failures, len(PAUSES_S) - 1)])
                failures += 1
            else:
                if self._away:
                    self._away = self._warned = False
                    self._store_away.passed()
                    self._troubled(False)
                return receipt
            finally:
                alarm.cancel()

    async def _require_stream(self) -> None:
        """Who deletes an interview takes its streams from their owners first, which looks like a newer epoch.

        Raises:
            NotFound: that is what happened.
        """
        if all(one.id != self._key.stream for one in await self._store.streams(self._key.interview)):
            raise NotFound("no such stream in this interview")

    def _lose(self, error: StoreUnavailable | None = None) -> None:
        """The store is away: what waits, and what comes, goes into the spool meanwhile."""
        if error is not None or not self._away:
            self._store_away.came(error or "no answer")
        if not self._away:
            self._away = True
            self._troubled(True)
        self._put_by()

    async def _pause(self, seconds: float) -> None:
        self._hurry.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            return

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
        if not self._anchors:
            return True
        self._store.hurry()
        return await self._progress(self.restarts)

    async def _progress(self, restarts: tuple[Position, ...]) -> bool:
        anchors = tuple(self._anchors)
        taken = await self._store.keep_progress(self._key, restarts, anchors)
        del self._anchors[: len(anchors)]
        self._anchors_spooled = max(0, self._anchors_spooled - len(anchors))
        self.restarts = restarts
        return taken

    # --- into the spool -----------------------------------------------------------------------------------------

    def _put_by(self) -> None:
        """Spool what waits, one batch at a time, so that receipts keep their order."""
        if self._spool is None or not self._spool.active or self._batch or self._closed:
            return
        batch = [waiting for waiting in self._jobs if not waiting.spooled]
        # Restart points alone are worth no file: without them a resume only begins earlier.
        if not batch or (self._page is None and all(isinstance(waiting.job, Note) for waiting in batch)):
            return
        if self._page is None:
            self._page = self._spool.page(self._key, self._pages)
            self._pages += 1
            self._anchors_spooled = 0
        bodies = [lines.encode(entry) for entry in self._entries(batch)]
        finals = sum(isinstance(waiting.job, Keep) for waiting in batch)
        self._batch = batch
        if not self._page.append(bodies, finals, self._put_away):
            self._batch = []
            self._anchors_spooled = 0
            self._refused()

    def _entries(self, batch: list[_Waiting]) -> list[lines.Entry]:
        anchors = tuple(self._anchors[self._anchors_spooled :])
        self._anchors_spooled = len(self._anchors)
        entries = []
        for waiting in batch:
            entries.append(self._entry(waiting.job, anchors))
            anchors = ()
        return entries

    def _entry(self, job: Job, anchors: tuple[Anchor, ...]) -> lines.Entry:
        now_ms = self._utc_ms()
        return lines.Entry(
            key=self._key,
            at_ms=now_ms,
            anchors=anchors,
            final=job.final if isinstance(job, Keep) else None,
            restarts=job.restarts if isinstance(job, Note) else None,
            end=lines.End.of(self._stats(), now_ms) if isinstance(job, Settle) else None,
        )

    def _put_away(self, durable: bool) -> None:
        """The batch is in the spool, or could not be put there; it is tried again when the store is."""
        batch, self._batch = self._batch, []
        if self._closed:
            return
        if not durable:
            self._anchors_spooled = 0
            return self._refused()
        for waiting in batch:
            waiting.spooled = True
        for waiting in batch:
            if isinstance(waiting.job, Keep) and not waiting.told:
                waiting.told = True
                final = waiting.job.final
                self._stored(FinalKept(channel=final.channel, segment=final.segment, durable="spool"))
            if self._closed:  # the session left with this receipt
                return
        if self._away:
            self._put_by()

    def _refused(self) -> None:
        if not self._warned:
            self._warned = True
            self._warn("spool_full", "the store is away and this server's spool takes no more; finals wait")


def _current() -> asyncio.Task[None] | None:
    return asyncio.current_task()
