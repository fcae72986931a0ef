"""Where finals wait while the store is away: files of this node, one per session, durable before a final is shown.

A session appends what its store does not take and goes on bringing it there itself; when the store has everything the
file goes.  What a crash, a stop or a session that is over leaves behind is brought into the store by the spool, in
order, under its own epoch: what a newer epoch replaced is refused there, and counted.  A file that is damaged is
written as far as it can be read, then set aside.

Bound: ``spool.max_mb``, damaged files included.  When it is full nothing more is taken: finals wait in memory, audio
meets back-pressure when the ring is full, and sessions are told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from streamsrv import telemetry
from streamsrv.errors import StoreUnavailable
from streamsrv.runtime.ongoing import Ongoing
from streamsrv.runtime.settings import SpoolSettings
from streamsrv.runtime.spooling import draining, lines
from streamsrv.runtime.spooling.draining import Leftover
from streamsrv.runtime.spooling.numbers import Numbers
from streamsrv.runtime.spooling.page import ASIDE, SUFFIX, Name, Page, hash_of
from streamsrv.runtime.threads import call_on
from streamsrv.stores.base import StreamKey, TranscriptStore

THREADS = 4
"""Files made durable at once; file systems put concurrent syncs into one."""
STREAMS_AT_ONCE = 8
"""Streams whose leftovers are written at once; the files of one stream go one after the other."""
PAUSE_S = 1.0
"""Pause before leftovers are tried again while the store is away."""
START_WITHIN_S = 10.0
"""Time leftovers have before the server serves; what is not written by then is written meanwhile."""
LEAVE_WITHIN_S = 5.0
"""Time that pages of a deleted interview have to reach the disk before their files are deleted."""
MIB = 1_048_576

T = TypeVar("T")
log = telemetry.logger("spool")


class Spool:
    """The spool of one node.  All methods belong to the event loop.

    Args:
        folder: made, with mode 0700, when the server starts.
        store: where everything is to go.
    """

    def __init__(
        self,
        folder: Path,
        settings: SpoolSettings,
        store: TranscriptStore,
        metrics: telemetry.Metrics,
        *,
        utc_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.active = False
        """Whether finals may be spooled: not before ``start``, nor when ``max_mb`` is 0 or the folder is unusable."""
        self.failing = False
        """Whether the disk did not do what it should, the last time; known to the threads."""
        self.store_away = Ongoing(log, "store.away", over="store.back")
        """What all sessions of the node find: one trouble, told once."""
        self._disk = Ongoing(log, "spool.failed", over="spool.writes_again", level="error")
        self._fault = Ongoing(log, "spool.fault", over="spool.fault_over", level="error")
        self._folder = folder
        self._most_bytes = settings.max_mb * MIB
        self._store = store
        self._utc_ms = utc_ms
        self._pages: set[Page] = set()
        """Of living sessions."""
        self._leftovers: dict[Name, Leftover] = {}
        self._busy: set[str] = set()
        """Streams whose leftovers are being written."""
        self._bytes = 0
        self._aside = 0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="spool")
        self._numbers = Numbers(
            metrics, finals=self._finals, size=lambda: self._bytes, age_s=self._age_s, aside=lambda: self._aside
        )

    # --- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Find what a process before left, and write it if the store is there; otherwise that is tried on and on."""
        self._loop = asyncio.get_running_loop()
        try:
            found, self._aside, self._bytes = await self._run(self._scan)
        except OSError as error:
            log.error("spool.unusable", error=error)
            return
        self.active = self._most_bytes > 0
        self._leftovers = {one.name: one for one in found}
        if found or self._aside:
            finals = sum(one.finals for one in found)
            log.warning("spool.found", files=len(found), finals=finals, damaged_files=self._aside)
        try:
            async with asyncio.timeout(START_WITHIN_S):
                await self._try()
        except TimeoutError:
            log.warning("spool.waits", files=len(self._leftovers))
        self._task = self._loop.create_task(self._work())

    async def close(self) -> None:
        """Make durable what was taken; the files stay for the next process."""
        self.active = False
        if self._task is not None:
            self._task.cancel()
        await asyncio.to_thread(self._threads.shutdown)

    # --- of sessions --------------------------------------------------------------------------------------------

    def page(self, key: StreamKey, serial: int) -> Page:
        """A session's ``serial``-th file, not made yet; the session must ``delete`` or ``leave`` it."""
        name = Name(hash_of(key.interview), key.stream, key.epoch, serial)
        page = Page(self, key, self._folder / name.text)
        self._pages.add(page)
        return page

    def unstored(self, interview: str) -> bool:
        """Whether finals of this interview were shown here that the store does not have yet."""
        return any(page.key.interview == interview for page in self._pages if not page.over) or any(
            left.interview == interview for left in self._leftovers.values()
        )

    async def settle(self, stream: str) -> None:
        """Bring what sessions of this stream left behind into the store, now.

        Raises:
            StoreUnavailable: it cannot be, at the moment.
        """
        while any(page.key.stream == stream for page in self._pages if page.leaving):
            await self._change()
        names = sorted(name for name in self._leftovers if name.stream == stream)
        if names:
            await self._drain_stream(stream, names)

    async def forget(self, interview: str) -> None:
        """Delete every file of an interview whose sessions are over.

        Raises:
            OSError: something could not be deleted.
        """
        try:
            async with asyncio.timeout(LEAVE_WITHIN_S):
                while any(page.key.interview == interview for page in self._pages):
                    await self._change()
        except TimeoutError:
            log.warning("spool.pages_left", interview=interview)
        mark = hash_of(interview)
        for name in [name for name in self._leftovers if name.hash == mark]:
            self._bytes -= self._leftovers.pop(name).size
        aside, size = await self._run(lambda: _remove(self._folder, mark))
        self._aside -= aside
        self._bytes -= size

    # --- of pages -----------------------------------------------------------------------------------------------

    def lend(self, page: Page, size: int, finals: int) -> bool:
        """Count room for a page's batch; False when there is not so much."""
        if size > 0 and (not self.active or self._bytes + size > self._most_bytes):
            return False
        self._bytes += size
        page.bytes += size
        page.finals += finals
        if page.since_ms is None:
            page.since_ms = self._utc_ms()
        return True

    def submit(self, work: Callable[[], None]) -> None:
        """Do this in a thread."""
        try:
            self._threads.submit(work)
        except RuntimeError:  # the server has stopped; what is durable is found by the next one
            log.warning("spool.late")

    def on_loop(self, call: Callable[..., None], *args: object) -> None:
        """Call on the event loop, from a thread."""
        call_on(self._loop, call, *args)

    def failed(self, error: OSError) -> None:
        """The disk did not do what it should."""
        self._numbers.failures.inc()
        self.failing = True
        self._disk.came(error)

    def wrote(self) -> None:
        """The disk did what it should, after a failure."""
        self.failing = False
        self._disk.passed()

    def deleted(self, page: Page) -> None:
        """A page's file is gone."""
        self._bytes -= page.bytes
        self._pages.discard(page)
        self._changed.set()

    def left(self, page: Page, exists: bool) -> None:
        """A page's session is over; its file, if it has one, waits."""
        if not exists:
            return self.deleted(page)
        self._pages.discard(page)
        name = Name.of(page.path.name)
        if name is not None:
            self._leftovers[name] = Leftover(
                name=name,
                path=page.path,
                interview=page.key.interview,
                size=page.bytes,
                finals=page.finals,
                since_ms=page.since_ms or 0,
            )
        self._changed.set()

    # --- leftovers ----------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Write leftovers for as long as the server lives."""
        while True:
            if not self._leftovers:
                await self._change()
                continue
            if not await self._try():
                await asyncio.sleep(PAUSE_S)

    async def _try(self) -> bool:
        try:
            await self._drain_all()
        except StoreUnavailable:
            return False
        except Exception as error:  # one fault of ours must not end all later writing
            self._fault.came(error)
            return False
        self._fault.passed()
        return True

    async def _drain_all(self) -> None:
        """One round over all leftovers; raises what the first failure was when the round is over."""
        by_stream: dict[str, list[Name]] = {}
        for name in sorted(self._leftovers):
            by_stream.setdefault(name.stream, []).append(name)
        turns = asyncio.Semaphore(STREAMS_AT_ONCE)

        async def one(stream: str, names: list[Name]) -> None:
            async with turns:
                await self._drain_stream(stream, names)

        outcomes = await asyncio.gather(*(one(*item) for item in by_stream.items()), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _drain_stream(self, stream: str, names: Iterable[Name]) -> None:
        while stream in self._busy:
            await self._change()
        self._busy.add(stream)
        try:
            for name in names:
                if name in self._leftovers:
                    await self._drain(self._leftovers[name])
        finally:
            self._busy.discard(stream)
            self._changed.set()

    async def _drain(self, left: Leftover) -> None:
        said = log.bind(interview=left.interview, stream=left.name.stream, epoch=left.name.epoch)
        try:
            found = await self._run(lambda: lines.read(left.path.read_bytes()))
        except FileNotFoundError:  # deleted with its interview
            return self._done(left)
        except OSError as error:
            said.error("spool.unreadable", error=error)
            return await self._set_aside(left)
        drained = await draining.drain(self._store, found)
        self._numbers.drained.labels("stored").inc(drained.stored)
        self._numbers.drained.labels("refused").inc(drained.refused)
        said.info("spool.drained", stored=drained.stored, refused=drained.refused)
        if not drained.sound:
            said.error("spool.damaged", torn=found.torn, lines=found.damaged, file=left.path.name + ASIDE)
            return await self._set_aside(left)
        await self._change_file(lambda: left.path.unlink(missing_ok=True))
        self._done(left)

    async def _set_aside(self, left: Leftover) -> None:
        """Out of the way, for an operator to look at; it goes with its interview."""
        await self._change_file(lambda: left.path.rename(left.path.with_name(left.path.name + ASIDE)))
        self._leftovers.pop(left.name, None)
        self._aside += 1
        self._changed.set()

    async def _change_file(self, work: Callable[[], object]) -> None:
        """What fails here is met again by the next process: the store takes everything twice."""
        try:
            await self._run(work)
        except OSError as error:
            self.failed(error)

    def _done(self, left: Leftover) -> None:
        if self._leftovers.pop(left.name, None) is not None:
            self._bytes -= left.size
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    # --- in a thread --------------------------------------------------------------------------------------------

    def _scan(self) -> tuple[list[Leftover], int, int]:
        """Leftovers, damaged files set aside, and the bytes of both."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = [
            draining.look(path, name)
            for path in sorted(self._folder.glob(f"*{SUFFIX}"))
            if (name := Name.of(path.name)) is not None
        ]
        aside = [path.stat().st_size for path in self._folder.glob(f"*{ASIDE}")]
        return found, len(aside), sum(one.size for one in found) + sum(aside)

    # --- numbers ------------------------------------------------------------------------------------------------

    def _finals(self) -> float:
        return sum(page.finals for page in self._pages) + sum(left.finals for left in self._leftovers.values())

    def _age_s(self) -> float:
        since = [page.since_ms for page in self._pages if page.since_ms is not None]
        since += [left.since_ms for left in self._leftovers.values() if left.since_ms]
        return max(0.0, (self._utc_ms() - min(since)) / 1000) if since else 0.0


def _remove(folder: Path, mark: str) -> tuple[int, int]:
    """Delete the files of one interview; how many were set aside, and their bytes."""
    aside = size = 0
    for path in folder.glob(f"{mark}-*"):
        if path.name.endswith(ASIDE):
            aside, size = aside + 1, size + path.stat().st_size
        path.unlink(missing_ok=True)
    return aside, size
