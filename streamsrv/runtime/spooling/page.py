"""One file of the spool: what one session could not bring into the store, appended and made durable in a thread.

``HASH-STREAM-EPOCH-SERIAL.spool``; the hash is the interview's, the serial counts the files of one session.  A file
belongs to one session until that deletes it or leaves it behind.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from streamsrv.runtime.spooling import lines
from streamsrv.stores.base import StreamKey

SUFFIX = ".spool"
ASIDE = ".aside"
"""Ends the name of a file that was damaged: what could be read of it is in the store, the rest is for an operator."""
_NAME = re.compile(r"(?P<hash>[0-9a-f]{32})-(?P<stream>[\w-]+)-(?P<epoch>\d+)-(?P<serial>\d+)\.spool")


class Name(NamedTuple):
    """A file's name, as it sorts: what must be written first comes first."""

    hash: str
    stream: str
    epoch: int
    serial: int

    @property
    def text(self) -> str:
        return f"{self.hash}-{self.stream}-{self.epoch}-{self.serial}{SUFFIX}"

    @classmethod
    def of(cls, name: str) -> Name | None:
        found = _NAME.fullmatch(name)
        return found and cls(found["hash"], found["stream"], int(found["epoch"]), int(found["serial"]))


def hash_of(interview: str) -> str:
    """What stands for an interview in names of files."""
    return hashlib.sha256(interview.encode()).hexdigest()[:32]


class Batch(NamedTuple):
    """Entries that become durable together."""

    bodies: Sequence[bytes]
    finals: int
    done: Callable[[bool], None]
    """Told on the event loop whether they are durable; if not, nothing of them is in the file."""


class Desk(Protocol):
    """What a page needs of the spool; the calls back come on the event loop."""

    def lend(self, page: Page, size: int, finals: int) -> bool:
        """Count room for a page's batch; False when there is not so much."""

    def submit(self, work: Callable[[], None]) -> None:
        """Do this in a thread."""

    def on_loop(self, call: Callable[..., None], *args: object) -> None:
        """Call on the event loop, from a thread."""

    @property
    def failing(self) -> bool:
        """Whether the disk did not do what it should, the last time; may be asked from a thread."""

    def failed(self, error: OSError) -> None:
        """The disk did not do what it should."""

    def wrote(self) -> None:
        """The disk did what it should, after a failure."""

    def deleted(self, page: Page) -> None:
        """A page's file is gone."""

    def left(self, page: Page, exists: bool) -> None:
        """A page's session is over; its file, if it has one, waits."""


class Page:
    """A session's file.  ``append``, ``delete`` and ``leave`` belong to the event loop and never wait.

    Args:
        desk: the spool, which lends room, threads and the way back to the event loop.
        key: whose.
        path: does not exist yet; made with the first batch.
    """

    def __init__(self, desk: Desk, key: StreamKey, path: Path) -> None:
        self.key = key
        self.path = path
        self.bytes = self.finals = 0
        """Taken so far, durable or on the way."""
        self.since_ms: int | None = None
        """UTC, of the first batch."""
        self.leaving = False
        """Its session is over; soon the file is the spool's."""
        self.over = False
        """The store has everything; soon the file is gone."""
        self._desk = desk
        self._lock = threading.Lock()
        self._waiting: list[Batch] = []
        self._ending: Callable[[], None] | None = None
        self._scheduled = False
        self._size = self._lines = 0
        """What is durable in the file; known to the thread."""
        self._broken = False

    def append(self, bodies: Sequence[bytes], finals: int, done: Callable[[bool], None]) -> bool:
        """Make encoded entries durable, in order; False when the spool has no room for them, and nothing was taken."""
        size = sum(len(body) + lines.OVERHEAD_BYTES for body in bodies)
        if not self._desk.lend(self, size, finals):
            return False

        def settled(ok: bool) -> None:
            if not ok:
                self._desk.lend(self, -size, -finals)
            done(ok)

        with self._lock:
            self._waiting.append(Batch(bodies, finals, settled))
        self._schedule()
        return True

    def delete(self) -> None:
        """The store has everything: after what was appended, the file goes."""
        self.over = True
        self._end(self._delete)

    def leave(self) -> None:
        """The session is over, and the store has not everything: after what was appended, the file is the spool's."""
        self.leaving = True
        self._end(self._leave)

    def _end(self, ending: Callable[[], None]) -> None:
        with self._lock:
            self._ending = ending
        self._schedule()

    def _schedule(self) -> None:
        with self._lock:
            due, self._scheduled = not self._scheduled, True
        if due:
            self._desk.submit(self._work)

    # --- in a thread, one at a time -----------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._lock:
                batches, self._waiting = self._waiting, []
                ending = None if batches else self._ending
                if not batches:
                    self._ending, self._scheduled = None, False
            if batches:
                ok = self._write(batches)
                for batch in batches:
                    self._desk.on_loop(batch.done, ok)
                continue
            if ending is not None:
                ending()
            return

    def _write(self, batches: Sequence[Batch]) -> bool:
        bodies = [body for batch in batches for body in batch.bodies]
        data = b"".join(lines.line(number, body) for number, body in enumerate(bodies, self._lines))
        try:
            self._append(data)
        except OSError as error:
            self._desk.on_loop(self._desk.failed, error)
            self._take_back()
            return False
        self._size += len(data)
        self._lines += len(bodies)
        if self._desk.failing:
            self._desk.on_loop(self._desk.wrote)
        return True

    def _append(self, data: bytes) -> None:
        """Open for each batch: as many files are open as there are threads, not as there are sessions."""
        if self._broken:
            raise OSError(errno.EIO, "an earlier batch could not be taken back")
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        if not self._size:
            sync_folder(self.path.parent)

    def _take_back(self) -> None:
        """Cut off what was written of a batch that failed, or it would stand before the next one.

        A file with nothing else in it goes: its session may leave, and then nobody asks for it.
        """
        try:
            if self._size:
                os.truncate(self.path, self._size)
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            self._broken = True
            self._desk.on_loop(self._desk.failed, error)

    def _delete(self) -> None:
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            self._desk.on_loop(self._desk.failed, error)
        self._desk.on_loop(self._desk.deleted, self)

    def _leave(self) -> None:
        self._desk.on_loop(self._desk.left, self, self._size > 0)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable.

    Raises:
        OSError: as the system says.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
