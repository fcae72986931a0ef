"""One server per data directory: a lock file that the kernel frees when its holder dies.

``flock`` belongs to the open file, so a lock left by a dead process is no obstacle.  A child *forked* while the lock
is held would hold it too: engines fork their zygote before the store is opened.
"""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from streamsrv.errors import SetupError

LOCK_NAME = "server.lock"


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds the lock, as written inside the file."""

    pid: int
    since: str
    """UTC, ISO 8601."""


class ServerLock:
    """The server's role on one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / LOCK_NAME
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        return self._fd is not None

    def acquire(self) -> None:
        """Take the role, without waiting.

        Raises:
            SetupError: another server has it; names its process and the remedy.
        """
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            who = _holder(fd)
            os.close(fd)
            if not isinstance(error, BlockingIOError):
                raise
            raise _taken(self._path.parent, who) from None
        self._fd = fd
        _write(fd, Holder(pid=os.getpid(), since=datetime.now(UTC).isoformat(timespec="seconds")))

    def release(self) -> None:
        """Give the role back.  Safe to call twice."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)


def _write(fd: int, holder: Holder) -> None:
    """Best effort: on a full disk the lock holds all the same, only nameless."""
    try:
        os.fchmod(fd, 0o600)
        os.ftruncate(fd, 0)
        os.pwrite(fd, msgspec.json.encode(holder) + b"\n", 0)
    except OSError:
        return


def _holder(fd: int) -> Holder | None:
    try:
        return msgspec.json.decode(os.pread(fd, 4096, 0), type=Holder)
    except (OSError, msgspec.MsgspecError):
        return None


def _taken(data_dir: Path, who: Holder | None) -> SetupError:
    name = "another server" if who is None else f"another server (pid {who.pid}, since {who.since})"
    remedy = "stop it" if who is None else f"stop it (kill {who.pid})"
    return SetupError(f"{name} uses the data directory {data_dir}", hint=f"{remedy}, or choose another data_dir")
