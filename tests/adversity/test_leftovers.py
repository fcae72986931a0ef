"""Each kind of orphan is planted where it would lie, and found; what goes by itself is none."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from streamsrv.stores.sqlite.lock import LOCK_NAME
from streamsrv.stores.sqlite.schema import DATABASE_NAME
from tests.adversity.arena import eventually
from tests.adversity.runs import leftovers
from tests.adversity.runs.processes import Kin

PARENT = """
import subprocess, sys, time
child = subprocess.Popen(["sleep", "60"], start_new_session=True, stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(60)
"""
"""A process with a child in a session of its own, as decoders are."""


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """The data directory of a node that has ended in order."""
    folder = tmp_path / "node-0" / "data"
    store = SqliteStore(SqliteSettings(data_dir=str(folder)))
    await store.open()
    await store.close()
    return folder


def test_nothing_is_left_when_a_server_ended_in_order(data: Path) -> None:
    assert [*leftovers.of_folder(data), *leftovers.of_sqlite(data)] == []


@pytest.mark.parametrize("name", ["spool/0a.spool", "spool/0a.spool.aside", "uploads/1b.upload", "node.new"])
def test_a_file_of_work_under_way_is_found(data: Path, name: str) -> None:
    path = data / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert list(leftovers.of_folder(data)) == [f"file {name} of node-0"]


def test_a_recording_that_still_grows_is_found_and_a_whole_one_is_left_alone(data: Path) -> None:
    folder = data / "recordings" / "hash"
    folder.mkdir(parents=True)
    (folder / "0.flac").touch()
    (folder / "1.part").touch()
    assert list(leftovers.of_folder(data)) == ["file recordings/hash/1.part of node-0"]


def test_a_lock_that_somebody_holds_is_found(data: Path) -> None:
    fd = os.open(data / LOCK_NAME, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        (found,) = leftovers.of_folder(data)
    finally:
        os.close(fd)
    assert found.startswith("a lock: another server")
    assert list(leftovers.of_folder(data)) == []


def test_a_lease_and_a_job_in_the_database_are_found(data: Path) -> None:
    with closing(sqlite3.connect(data / DATABASE_NAME)) as database, database:
        database.execute("INSERT INTO leases (sink, interview, node, until) VALUES ('webhook', 'talk', 'n-1', 7)")
        for state in ("done", "queued"):
            job = (f"job-{state}", "talk", state, "{}")
            database.execute("INSERT INTO jobs (_id, interview, state, document) VALUES (?, ?, ?, ?)", job)
    assert list(leftovers.of_sqlite(data)) == ["lease of n-1 on talk for webhook", "job job-queued is still queued"]


async def test_a_process_that_left_its_nodes_group_is_found_when_the_node_is_gone() -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    try:
        kin = Kin()
        kin.begin(parent.pid)
        kin.note(parent.pid)
        assert kin.left(parent.pid) == [], "the node lives, and so may they"
        parent.kill()
        await parent.wait()
        assert kin.left(None) == [child]
    finally:
        os.kill(child, signal.SIGKILL)
    await eventually(lambda: not kin.left(None), lambda: kin.left(None))
