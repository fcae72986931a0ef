"""Which process decodes what.

A file has a process of its own, which never saw another and never sees the next: what a hostile file breaks, it
breaks for itself.  One process is kept ready, so nobody waits for its start.  Live recordings share processes, eight at
a time.
"""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from typing import Final

from streamsrv.audio._cage import walls
from streamsrv.audio._cage.process import Process
from streamsrv.audio._cage.settings import CageSettings
from streamsrv.audio._cage.walls import Walls
from streamsrv.errors import DecoderLost, Full, SetupError

LIVE_LANES: Final = 8
"""Live recordings in one process; the next one gets another process."""
LIVE_ROOM: Final = 4
"""Live recordings there is always room for; with less, another process is started ahead of its first recording."""
LIVE_AFTER_S: Final = 3.0
"""The first process for live recordings is started so long after the server, or with the first recording: those who
come back to a server that was away need its cores more."""
LIVE_USES: Final = 64
"""Live recordings in one process's life; then it takes no more and leaves after the last."""
ATTEMPTS: Final = 3
"""Processes that may be found dead or fail to start, before somebody who wants one is told so."""
WATCH_S: Final = 1.0
"""How often decoders are looked at, at most."""


class Seat:
    """A live process, perhaps still starting, and how many want it."""

    def __init__(self, process: asyncio.Task[Process]) -> None:
        self.process = process
        self.taken = 0
        self.uses = 0

    @property
    def ready(self) -> Process | None:
        """The process, when it is up."""
        done = self.process.done() and not self.process.cancelled() and self.process.exception() is None
        return self.process.result() if done else None

    @property
    def open(self) -> bool:
        """Whether it can take one more."""
        process = self.ready
        failed = self.process.done() and process is None
        return (
            not failed
            and not (process is not None and process.lost)
            and self.taken < LIVE_LANES
            and (self.uses < LIVE_USES)
        )

    @property
    def room(self) -> int:
        """How many more it can take."""
        return min(LIVE_LANES - self.taken, LIVE_USES - self.uses) if self.open else 0


class Pool:
    """See the module.  Bounds: ``processes`` for files with ``waiting`` behind them, ``max_live`` live recordings."""

    def __init__(self, settings: CageSettings) -> None:
        self._settings = settings
        self._kind: Walls = "plain"
        self._slots = asyncio.Semaphore(settings.processes)
        self._waiting = 0
        self._spare: asyncio.Task[Process] | None = None
        self._seats: list[Seat] = []
        self._all: set[Process] = set()
        self._starting: set[asyncio.Task[Process]] = set()
        self._watch: asyncio.Task[None] | None = None
        self._ahead: asyncio.TimerHandle | None = None
        self._closed = False
        self.walls: tuple[str, ...] = ()
        """What stands around every decoder."""

    @property
    def pids(self) -> tuple[int, ...]:
        """Processes there are, the outermost of each."""
        return tuple(process.pid for process in self._all)

    # --- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the first process behind the best walls there are.

        Raises:
            SetupError: none comes up, or not behind the walls that were asked for.
        """
        if not sys.platform.startswith("linux"):
            raise SetupError("decoding holds its processes in a way only Linux has", hint="use Linux")
        for kind in self._kinds():
            self._kind = kind
            self._spare = self._begin(at_once=1, uses=1)
            try:
                process = await asyncio.shield(self._spare)
            except DecoderLost:
                continue
            self.walls = (*(("bubblewrap",) if kind == "bubblewrap" else ()), *process.walls)
            self._watch = asyncio.get_running_loop().create_task(self._look())
            self._ahead = asyncio.get_running_loop().call_later(LIVE_AFTER_S, self._make_room)
            return
        raise SetupError(
            f"no decoder process comes up (decode.walls = {self._settings.walls!r})",
            hint="see whether this machine may start processes, has 512 MB of free memory and the package av "
            "(pip install av); bubblewrap needs user namespaces: without them use decode.walls = 'plain'",
        )

    def _kinds(self) -> tuple[Walls, ...]:
        wanted = self._settings.walls
        if wanted != "auto":
            return (wanted,)
        return ("plain",) if walls.bubblewrap() is None else ("bubblewrap", "plain")

    async def close(self) -> None:
        """End every process and wait for the ends.  Safe to call twice."""
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
        if self._ahead is not None:
            self._ahead.cancel()
        for task in self._starting:
            task.cancel()
        for process in list(self._all):
            process.kill()
        await asyncio.gather(*self._starting, *([self._watch] if self._watch else []), return_exceptions=True)
        await asyncio.gather(*(process.gone for process in list(self._all)))

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        pause = min(WATCH_S, self._settings.stall_s / 4)
        last = loop.time()
        while True:
            await asyncio.sleep(pause)
            now = loop.time()
            # A server that was itself away for a while has not read yet what its decoders had to say.
            for process in list(self._all):
                process.watch(now, fair=now - last < 2 * pause)
            last = now

    def _begin(self, *, at_once: int, uses: int) -> asyncio.Task[Process]:
        task = asyncio.get_running_loop().create_task(self._born(at_once=at_once, uses=uses))
        self._starting.add(task)
        task.add_done_callback(self._begun)
        return task

    def _begun(self, task: asyncio.Task[Process]) -> None:
        self._starting.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits hears of it; nobody may be waiting

    async def _born(self, *, at_once: int, uses: int) -> Process:
        if self._closed:
            raise DecoderLost("the server is going away")
        process = Process(self._settings, self._kind, at_once=at_once, uses=uses)
        self._all.add(process)
        process.gone.add_done_callback(lambda _: self._all.discard(process))
        await process.start()
        return process

    # --- files -----------------------------------------------------------------------------------------------

    async def for_file(self) -> Process:
        """A fresh process; its slot is free again when it is gone.

        Raises:
            Full: too many wait already.
            DecoderLost: none can be started.
        """
        if self._slots.locked() and self._waiting >= self._settings.waiting:
            raise Full(f"{self._waiting} recordings wait for a decoder already", retry_after_s=5.0)
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            process = await self._fresh()
        except BaseException:
            self._slots.release()
            raise
        process.gone.add_done_callback(lambda _: self._slots.release())
        return process

    async def _fresh(self) -> Process:
        """The process that was kept ready, or a new one; the next one begins to start."""
        for attempt in range(ATTEMPTS):
            task, self._spare = self._spare or self._begin(at_once=1, uses=1), None
            try:
                process = await asyncio.shield(task)
            except DecoderLost:
                if attempt + 1 == ATTEMPTS:
                    raise
                continue
            except asyncio.CancelledError:
                task.add_done_callback(_unwanted)
                raise
            if not process.lost:
                if self._spare is None and not self._closed:
                    self._spare = self._begin(at_once=1, uses=1)
                return process
        raise DecoderLost("decoder processes die before they are used", retry_after_s=1.0)

    # --- live recordings -------------------------------------------------------------------------------------

    def seat(self) -> Seat:
        """A place in a live process; give it back with ``leave``.

        Raises:
            Full: as many as allowed are live.
        """
        if sum(seat.taken for seat in self._seats) >= self._settings.max_live:
            raise Full(f"{self._settings.max_live} live containers are decoded already", retry_after_s=5.0)
        self._seats = [seat for seat in self._seats if seat.taken or seat.open]
        found = next((seat for seat in self._seats if seat.open), None)
        if found is None:
            found = self._new_seat()
            self._seats.append(found)
        found.taken += 1
        found.uses += 1
        self._make_room()
        return found

    def _make_room(self) -> None:
        """So that the next one does not wait for a start."""
        if sum(seat.room for seat in self._seats) < LIVE_ROOM and not self._closed:
            self._seats.append(self._new_seat())

    def _new_seat(self) -> Seat:
        return Seat(self._begin(at_once=LIVE_LANES, uses=LIVE_USES))

    def leave(self, seat: Seat) -> None:
        """The place is free again.  A process nobody needs leaves, except one that can take more."""
        seat.taken -= 1
        needed = seat.taken > 0 or (seat.open and not any(other.open for other in self._seats if other is not seat))
        if not needed and seat in self._seats:
            self._seats.remove(seat)
            if seat.ready is not None:
                seat.ready.close()
            else:
                seat.process.cancel()


def _unwanted(task: asyncio.Task[Process]) -> None:
    """Whoever wanted this process has gone."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def open_regular(path: os.PathLike[str] | str) -> int:
    """A descriptor for reading; the caller closes it.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("not a regular file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
