"""The data directory as one archive, taken while a server runs, and back.

The archive is a gzip-compressed tar: ``streamsrv.db`` as one consistent snapshot (SQLite's online backup), then what
lies in ``recordings``, ``spool`` and ``uploads``.  What is written while the archive is being made may be in it or not,
but the database in it is always whole.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from streamsrv.errors import SetupError
from streamsrv.stores.sqlite.lock import ServerLock
from streamsrv.stores.sqlite.schema import DATABASE_NAME

FOLDERS = ("recordings", "spool", "uploads")
STEP_PAGES = 1_000
"""Pages copied at once, so that a running server's writes get in between."""


def backup(data_dir: Path, archive: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Write an archive of a data directory, readable by its owner alone.

    Args:
        archive: does not exist yet.
        progress: told pages copied and pages in all.

    Returns:
        The archive's bytes.

    Raises:
        SetupError: there is nothing to back up, or the archive cannot be written.
    """
    source = data_dir / DATABASE_NAME
    if not source.is_file():
        raise SetupError(f"{data_dir} holds no {DATABASE_NAME}", hint="name the server's folder with --data-dir")
    part = archive.with_name(f"{archive.name}.{secrets.token_hex(4)}.part")  # nobody else's
    try:
        with _private(archive, part) as out, tarfile.open(fileobj=out, mode="w:gz") as tar:
            with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
                snapshot = Path(folder) / DATABASE_NAME
                _copy_database(source, snapshot, progress)
                tar.add(snapshot, arcname=DATABASE_NAME)
            for path in _files(data_dir):
                _add(tar, path, path.relative_to(data_dir))
        size = part.stat().st_size
        os.link(part, archive)  # fails when somebody else made the archive meanwhile
    except (OSError, sqlite3.Error) as error:
        raise SetupError(f"the backup could not be written: {_why(error)}", hint="check the folder") from error
    finally:
        part.unlink(missing_ok=True)
    return size


def restore(archive: Path, data_dir: Path) -> int:
    """Unpack an archive into a data directory that holds no database yet.

    Returns:
        Files restored.

    Raises:
        SetupError: the archive is none of ours, or the directory is in use.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = ServerLock(data_dir)
        lock.acquire()
        try:
            return _unpack(archive, data_dir)
        finally:
            lock.release()
    except (OSError, tarfile.TarError, EOFError, sqlite3.Error) as error:
        raise SetupError(f"{archive} could not be restored: {_why(error)}", hint="nothing was put in place") from error


def _unpack(archive: Path, data_dir: Path) -> int:
    target = data_dir / DATABASE_NAME
    if target.exists():
        raise SetupError(f"{data_dir} holds a database already", hint="restore into an empty folder, then move it")
    with tempfile.TemporaryDirectory(dir=data_dir) as folder, tarfile.open(archive, mode="r:gz") as tar:
        members = tar.getmembers()
        if DATABASE_NAME not in (member.name for member in members) or not all(_ours(member) for member in members):
            raise SetupError(f"{archive} is no backup of streamsrv", hint="make one with 'streamsrv backup'")
        unpacked = Path(folder)
        for member in members:
            _extract(tar, member, unpacked)
        _check_database(unpacked / DATABASE_NAME)
        for name in FOLDERS:
            if (unpacked / name).exists():
                (unpacked / name).rename(data_dir / name)
        (unpacked / DATABASE_NAME).rename(target)  # last: with it the directory is restored
    return len(members)


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    """Only the bytes: owners, modes and times of an archive are somebody else's; ours are 0700 and 0600."""
    target = root / member.name
    for folder in (*reversed(target.relative_to(root).parents), Path()):
        (root / folder).mkdir(mode=0o700, exist_ok=True)  # ``parents=True`` would give those between the usual mode
    source = tar.extractfile(member)
    if source is None:
        raise tarfile.ReadError("a member is no file")
    with source, os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        shutil.copyfileobj(source, out)


def _ours(member: tarfile.TarInfo) -> bool:
    parts = member.name.split("/")
    return member.isfile() and ".." not in parts and (member.name == DATABASE_NAME or parts[0] in FOLDERS)


def _check_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    try:
        if connection.execute("PRAGMA quick_check").fetchone() != ("ok",):
            raise SetupError("the database in the archive is damaged", hint="use another backup")
    finally:
        connection.close()


def _copy_database(source: Path, target: Path, progress: Callable[[int, int], None]) -> None:
    reading = sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)
    writing = sqlite3.connect(target)
    try:
        reading.backup(writing, pages=STEP_PAGES, progress=lambda _, left, total: progress(total - left, total))
    finally:
        writing.close()
        reading.close()


def _files(data_dir: Path) -> Iterator[Path]:
    for name in FOLDERS:
        yield from (path for path in sorted((data_dir / name).rglob("*")) if path.is_file() and not path.is_symlink())


def _add(tar: tarfile.TarFile, path: Path, name: Path) -> None:
    """A file that is deleted or still growing is taken as it is at this moment."""
    try:
        with path.open("rb") as file:
            member = tar.gettarinfo(arcname=str(name), fileobj=file)
            tar.addfile(member, file)
    except FileNotFoundError:
        pass


def _private(archive: Path, part: Path) -> BinaryIO:
    if archive.exists():
        raise SetupError(f"{archive} exists already", hint="choose another name")
    return os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
