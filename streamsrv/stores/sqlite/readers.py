"""A few threads with a reading connection each; reads never wait for writes (WAL)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from streamsrv.errors import StoreUnavailable
from streamsrv.stores.sqlite import failures

T = TypeVar("T")

READERS = 2
MAX_READS = 256
"""Reads that may wait or run; more are refused with ``StoreUnavailable``, to be tried again."""


class Readers:
    """Runs reads off the event loop.

    Args:
        connect: opens a reading connection; called again after one broke.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._idle: list[sqlite3.Connection] = []
        self._reads = 0
        self._pool: ThreadPoolExecutor | None = None

    def start(self) -> None:
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="store-read")

    async def stop(self) -> None:
        """Wait for running reads, close all connections.  Safe to call twice."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown)
        while self._idle:
            self._idle.pop().close()

    async def run(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """One read, in one transaction.

        Raises:
            StoreUnavailable: closed, too many wait, or the database cannot be read.
        """
        if self._pool is None:
            raise StoreUnavailable("the store is closed")
        if self._reads >= MAX_READS:
            raise StoreUnavailable(f"{MAX_READS} reads wait already", retry_after_s=failures.RETRY_AFTER_S)
        self._reads += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, self._read, read)
        future.add_done_callback(self._done)
        return await future

    def _done(self, future: asyncio.Future[T]) -> None:
        self._reads -= 1

    def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        connection: sqlite3.Connection | None = None
        try:
            connection = self._idle.pop() if self._idle else self._connect()
            connection.execute("BEGIN")
            result = read(connection)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise failures.unavailable(error) from error
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        self._idle.append(connection)
        return result
