"""One thread that owns the writing connection and commits in groups.

Everything that waits goes into one transaction with one ``fsync``; callers are answered only after ``COMMIT``.  A
statement that fails takes back its own work alone (savepoint).  When the disk fails, the whole group and all that
waits behind it fail: so nobody is overtaken by a later write of his own.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Generic, TypeVar

from streamsrv.errors import StoreUnavailable
from streamsrv.stores.sqlite import failures

T = TypeVar("T")

MAX_GROUP = 1024
"""Writes in one transaction; what waits beyond goes into the next, so that no reader or caller waits for long."""
GATHER_S = 0.04
"""How long writes that are not urgent wait for company; an urgent one takes them along at once."""


class Job(Generic[T]):
    """One caller's write."""

    __slots__ = ("error", "future", "result", "single", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], T], future: asyncio.Future[T], single: bool) -> None:
        self.work = work
        self.future = future
        self.single = single
        """At most one statement changes something: SQLite undoes it by itself."""
        self.result: T | None = None
        self.error: BaseException | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        """Do the work; an error of its own is kept for its caller, one of the environment is raised."""
        try:
            self.result = self.work(connection) if self.single else self._in_savepoint(connection)
        except Exception as error:
            if failures.of_environment(error) or not connection.in_transaction:
                raise
            self.error = error

    def _in_savepoint(self, connection: sqlite3.Connection) -> T:
        connection.execute("SAVEPOINT job")
        try:
            return self.work(connection)
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK TO job")
            raise
        finally:
            if connection.in_transaction:
                connection.execute("RELEASE job")

    def settle(self) -> None:
        """Answer the caller, on its loop; one that was cancelled has gone, its write stands."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)  # type: ignore[arg-type]
        else:
            self.future.set_exception(self.error)


class Writer:
    """Takes writes from one event loop, does them in its thread.

    Args:
        prepare: run first, in the thread; what it raises is raised by ``start``.
        connect: opens the writing connection; called again after it broke.
        max_waiting: writes that may wait; more are refused with ``StoreUnavailable``.
        observe: told the seconds of each transaction, on the event loop.
    """

    def __init__(
        self,
        *,
        prepare: Callable[[], None],
        connect: Callable[[], sqlite3.Connection],
        max_waiting: int,
        observe: Callable[[float], None] | None = None,
    ) -> None:
        self._prepare = prepare
        self._connect = connect
        self._max_waiting = max_waiting
        self._observe = observe
        self._waiting: deque[Job[object]] = deque()
        self._any = threading.Event()
        self._urgent = threading.Event()
        self._connection: sqlite3.Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None
        self._open = False
        self._stopping = False

    async def start(self) -> None:
        """Start the thread and wait until the database is ready."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        ready: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._live, args=(ready,), name="store-write", daemon=True).start()
        self._open = True
        try:
            await ready
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Do what was accepted, then end the thread.  Safe to call twice."""
        self._open = False
        self._stopping = True
        self._wake(urgent=True)
        if self._ended is not None:
            await asyncio.shield(self._ended)

    def submit(
        self, work: Callable[[sqlite3.Connection], T], *, single: bool = False, urgent: bool = True
    ) -> asyncio.Future[T]:
        """Queue a write.  It is done even when the caller stops waiting.

        Raises:
            StoreUnavailable: closed, or too many wait; nothing was taken.
        """
        if not self._open or self._loop is None:
            raise StoreUnavailable("the store is closed")
        if len(self._waiting) >= self._max_waiting:
            raise StoreUnavailable(
                f"{self._max_waiting} writes wait for the disk already", retry_after_s=failures.RETRY_AFTER_S
            )
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append(Job(work, future, single))  # type: ignore[arg-type]
        self._wake(urgent=urgent)
        return future

    def hurry(self) -> None:
        """What waits for company, or is queued next, goes at once."""
        self._urgent.set()

    def _wake(self, *, urgent: bool) -> None:
        if urgent and not self._urgent.is_set():
            self._urgent.set()
        if not self._any.is_set():
            self._any.set()

    # --- in the thread ----------------------------------------------------------------------------------------------

    def _live(self, ready: asyncio.Future[None]) -> None:
        try:
            self._prepare()
            self._connection = self._connect()
        except BaseException as error:
            self._tell(_raise_in, ready, error)
        else:
            self._tell(_succeed, ready)
            self._work()
        finally:
            self._disconnect()
            if self._ended is not None:
                self._tell(_succeed, self._ended)

    def _work(self) -> None:
        while True:
            self._any.wait()
            self._urgent.wait(GATHER_S)
            # Cleared before looking: what is appended from now on sets them again.
            self._any.clear()
            self._urgent.clear()
            while group := self._take(MAX_GROUP):
                self._do(group)
            if self._stopping and not self._waiting:
                return

    def _take(self, limit: int) -> list[Job[object]]:
        waiting = self._waiting
        return [waiting.popleft() for _ in range(min(len(waiting), limit))]

    def _do(self, group: list[Job[object]]) -> None:
        begun = perf_counter()
        try:
            self._commit(group)
        except Exception as error:
            self._give_up(error)
            group += self._take(self._max_waiting)
            for job in group:
                job.error = failures.unavailable(error)
        self._tell(self._settle, group, perf_counter() - begun)

    def _commit(self, group: list[Job[object]]) -> None:
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        for job in group:
            job.run(connection)
        connection.execute("COMMIT")

    def _give_up(self, error: Exception) -> None:
        """Take the transaction back; after worse than a full disk, begin with a new connection."""
        try:
            if self._connection is not None and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._disconnect()
        if not failures.spares_connection(error):
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                return

    def _settle(self, group: list[Job[object]], seconds: float) -> None:
        for job in group:
            job.settle()
        if self._observe is not None:
            self._observe(seconds)

    def _tell(self, call: Callable[..., None], *args: object) -> None:
        if self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return


def _succeed(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _raise_in(future: asyncio.Future[None], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
