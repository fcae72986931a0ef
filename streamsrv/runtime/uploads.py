"""Uploaded files on disk: written as they come, never held in memory, under names of our own."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import threading
import weakref
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from streamsrv import telemetry
from streamsrv.errors import DiskFull, StoreUnavailable, StreamsrvError

PIECE_BYTES = 1_048_576
"""Bytes gathered before the disk is asked: all of a file that is ever in memory."""
RESERVE_BYTES = 64 * 1_048_576
"""Room on the disk that a file must leave for transcripts; one that would not is refused."""
T = TypeVar("T")
log = telemetry.logger("uploads")
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Spool:
    """One file that is being received.

    Args:
        path: does not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.size = 0
        self._path = path
        self._held = bytearray()
        # A write goes on in its thread when its caller was cancelled; nobody may close the file under it.
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._opening: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Make the file, readable by its owner alone.

        Raises:
            DiskFull, StoreUnavailable: it cannot be made.
        """
        self._opening = asyncio.ensure_future(_in_thread(self._open))
        await asyncio.shield(self._opening)

    async def write(self, data: bytes) -> None:
        """Append.

        Raises:
            DiskFull, StoreUnavailable: it cannot be written; call ``discard``.
        """
        self._held += data
        self.size += len(data)
        if len(self._held) >= PIECE_BYTES:
            piece, self._held = self._held, bytearray()
            await _in_thread(lambda: self._write(piece))

    async def finish(self) -> None:
        """Make it durable, its name included.

        Raises:
            DiskFull, StoreUnavailable: it is not durable; call ``discard``.
        """
        await _in_thread(self._finish)

    async def discard(self) -> None:
        """Delete it.  Safe at any time, also twice; one that cannot be deleted now is swept later."""
        await asyncio.shield(self._gone())

    async def _gone(self) -> None:
        if self._opening is not None:  # its thread goes on when its caller was cancelled, and must not come after ours
            await asyncio.wait({self._opening})
            self._opening.exception()
        try:
            await asyncio.to_thread(self._discard)
        except OSError as error:
            log.warning("upload.left", error=error, file=self.name)

    # --- in threads -------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        with self._lock:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def _write(self, piece: bytearray) -> None:
        with self._lock:
            left = memoryview(piece)
            while left and self._fd is not None:
                left = left[os.write(self._fd, left) :]

    def _finish(self) -> None:
        self._write(self._held)
        with self._lock:
            if self._fd is not None:
                os.fsync(self._fd)
                os.close(self._fd)
                self._fd = None
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _discard(self) -> None:
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None
        self._path.unlink(missing_ok=True)


class Uploads:
    """The folder of uploaded files.

    Args:
        folder: made, with mode 0700, when the first file comes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._coming: weakref.WeakSet[Spool] = weakref.WeakSet()
        """Files that somebody still holds: no sweep takes them."""

    def path(self, name: str) -> Path:
        """Where the file of this name lies."""
        return self._folder / name

    def spool(self) -> Spool:
        """A new file, not opened yet; nothing of its name comes from a client."""
        spool = Spool(self.path(f"{secrets.token_hex(16)}.upload"))
        self._coming.add(spool)
        return spool

    async def require(self, size: int) -> None:
        """See whether a file of ``size`` bytes (0: not known) has room at the moment.

        Raises:
            DiskFull: it has none.
            StoreUnavailable: the disk cannot be asked.
        """
        free = await _in_thread(self._free)
        if free < size + RESERVE_BYTES:
            what = f"a file of {size} bytes" if size else "the file"
            raise DiskFull(f"{what} does not fit: {free} bytes are free, and {RESERVE_BYTES} stay for transcripts")

    async def remove(self, name: str) -> None:
        """Delete a file, if it is there; one that cannot be deleted now is swept later."""
        with suppress(OSError):
            await asyncio.to_thread(lambda: self.path(name).unlink(missing_ok=True))

    async def sweep(self, keep: Callable[[], Collection[str]]) -> int:
        """Delete what nobody owns, such as what a crash left: all but ``keep`` and what is being received.

        Args:
            keep: gives the names of the files that belong to jobs; asked when it is known which files there are.

        Returns:
            How many that were.
        """
        found = await asyncio.to_thread(self._found)
        stray = found - frozenset(keep()) - {spool.name for spool in self._coming}
        return await asyncio.to_thread(self._sweep, stray)

    def _free(self) -> int:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize

    def _found(self) -> frozenset[str]:
        return frozenset(path.name for path in self._folder.glob("*.upload"))

    def _sweep(self, stray: Collection[str]) -> int:
        gone = 0
        for name in stray:
            with suppress(OSError):
                self.path(name).unlink(missing_ok=True)
                gone += 1
        return gone


async def _in_thread(work: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(work)
    except OSError as failure:
        raise _refusal(failure) from failure


def _refusal(failure: OSError) -> StreamsrvError:
    """What a failed write means; the system's own message names the path, ours does not."""
    if failure.errno in _NO_ROOM:
        return DiskFull("the disk is full; nothing of the file was kept")
    name = errno.errorcode.get(failure.errno or 0, "unknown")
    return StoreUnavailable(
        f"the file cannot be written at the moment ({name})", hint="look at the uploads in the data directory"
    )
