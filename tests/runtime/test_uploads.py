"""Uploaded files on disk: whole and private, or not there at all."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamsrv.errors import DiskFull, StoreUnavailable
from streamsrv.runtime import uploads as module
from streamsrv.runtime.uploads import PIECE_BYTES, RESERVE_BYTES, Uploads


@contextmanager
def little_room(size: int) -> Iterator[None]:
    """The system itself refuses what would make a file longer than ``size``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


async def test_a_file_is_whole_and_its_owners_alone(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "data" / "uploads")
    spool = uploads.spool()
    await spool.open()
    wanted = os.urandom(PIECE_BYTES + 12_345)
    for at in range(0, len(wanted), 70_000):
        await spool.write(wanted[at : at + 70_000])
    await spool.finish()
    path = uploads.path(spool.name)
    assert path.read_bytes() == wanted
    assert spool.size == len(wanted)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_discarded_file_leaves_nothing(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    spool = uploads.spool()
    await spool.discard()
    await spool.open()
    await spool.write(bytes(3 * PIECE_BYTES))
    before = len(os.listdir("/proc/self/fd"))
    await spool.discard()
    await spool.discard()
    assert names(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == before - 1


async def test_a_disk_without_room_says_so(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    spool = uploads.spool()
    await spool.open()
    with little_room(2 * PIECE_BYTES), pytest.raises(DiskFull):
        await spool.write(bytes(4 * PIECE_BYTES))
    await spool.discard()
    assert names(tmp_path) == []


async def test_the_tail_that_finds_no_room_says_so_too(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    spool = uploads.spool()
    await spool.open()
    await spool.write(bytes(1_000))
    with little_room(500), pytest.raises(DiskFull):
        await spool.finish()
    await spool.discard()
    assert names(tmp_path) == []


async def test_room_is_asked_for_before(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads")
    await uploads.require(1)
    with pytest.raises(DiskFull) as caught:
        await uploads.require(1 << 62)
    assert f"a file of {1 << 62} bytes does not fit" in caught.value.message
    assert f"{RESERVE_BYTES} stay for transcripts" in caught.value.message


async def test_of_a_file_whose_size_nobody_said_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads = Uploads(tmp_path / "uploads")
    await uploads.require(0)
    monkeypatch.setattr("streamsrv.runtime.uploads.RESERVE_BYTES", 1 << 62)
    with pytest.raises(DiskFull, match="the file does not fit"):
        await uploads.require(0)


async def test_a_folder_that_cannot_be_is_the_servers_fault_and_unnamed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spool = Uploads(tmp_path / "file" / "uploads").spool()
    with pytest.raises(StoreUnavailable) as caught:
        await spool.open()
    assert "ENOTDIR" in caught.value.message
    assert str(tmp_path) not in caught.value.message
    with pytest.raises(StoreUnavailable, match="ENOTDIR"):
        await Uploads(tmp_path / "file" / "uploads").require(1)


async def test_a_write_that_was_cancelled_never_reaches_another_file(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    for _ in range(20):
        spool = uploads.spool()
        await spool.open()
        writing = asyncio.create_task(spool.write(bytes(8 * PIECE_BYTES)))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait({writing})
        await spool.discard()
        other = uploads.spool()
        await other.open()
        await other.write(b"mine")
        await other.finish()
        assert uploads.path(other.name).read_bytes() == b"mine"
        await other.discard()
    assert names(tmp_path) == []


async def test_the_sweep_takes_what_nobody_owns(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    for name in ("a.upload", "b.upload", "README"):
        (tmp_path / name).write_text("x")
    assert await uploads.sweep(lambda: {"b.upload"}) == 1
    assert names(tmp_path) == ["README", "b.upload"]
    await uploads.remove("b.upload")
    await uploads.remove("b.upload")
    assert names(tmp_path) == ["README"]
    assert await Uploads(tmp_path / "missing").sweep(tuple) == 0


async def test_the_sweep_leaves_what_is_being_received(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    early = uploads.spool()
    await early.open()
    late = uploads.spool()

    def meanwhile() -> tuple[str, ...]:
        """Between looking and deleting another file begins."""
        late._open()
        return ()

    assert await uploads.sweep(meanwhile) == 0
    assert names(tmp_path) == sorted((early.name, late.name))
    name = early.name
    del early  # whoever received it has gone
    gc.collect()
    assert await uploads.sweep(tuple) == 1
    assert names(tmp_path) == [late.name] != [name]
    await late.discard()


async def test_a_file_whose_opening_was_cancelled_is_gone_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread has not begun yet: threads are many, and the one that deletes may come first."""
    spool = Uploads(tmp_path).spool()
    in_thread, go, done = module._in_thread, threading.Event(), threading.Event()

    async def late(work: Callable[[], None]) -> None:
        def begun() -> None:
            go.wait(10)
            work()
            done.set()

        await in_thread(begun)

    monkeypatch.setattr(module, "_in_thread", late)
    opening = asyncio.create_task(spool.open())
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait({opening})
    discarding = asyncio.create_task(spool.discard())
    await asyncio.wait({discarding}, timeout=0.1)
    go.set()
    await discarding
    await asyncio.to_thread(done.wait, 10)
    assert names(tmp_path) == []


async def test_a_file_that_cannot_be_deleted_is_swept_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads = Uploads(tmp_path)
    spool = uploads.spool()
    await spool.open()
    with monkeypatch.context() as disk:
        disk.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError("a disk")))
        await spool.discard()
        await uploads.remove(spool.name)
    assert names(tmp_path) == [spool.name]
    del spool
    gc.collect()
    assert await uploads.sweep(tuple) == 1
    assert names(tmp_path) == []
