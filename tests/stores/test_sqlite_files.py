"""Files, locks and versions of the SQLite store: what is refused at open, and that nothing is overwritten then."""

# ruff: noqa: ASYNC240 -- small local files; nobody else is on these loops
from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from streamsrv.errors import SetupError, StoreUnavailable
from streamsrv.stores.base import StreamStats
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore, schema
from streamsrv.stores.sqlite.lock import ServerLock
from tests.stores.builders import NOW_MS, begin, final, token
from tests.stores.children import child


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "a" / "data"


@pytest.fixture
async def store(data: Path) -> AsyncIterator[SqliteStore]:
    store = at(data)
    await store.open()
    yield store
    await store.close()


def at(data: Path, *, server: bool = True) -> SqliteStore:
    return SqliteStore(SqliteSettings(data_dir=str(data)), server=server)


async def filled(data: Path) -> Path:
    """A closed database with 200 finals; its file."""
    store = at(data)
    await store.open()
    _, key = await begin(store)
    assert all(await asyncio.gather(*(store.keep_final(key, final(segment)) for segment in range(200))))
    assert len(await store.finals("talk")) == 200
    await store.close()
    return store.path


async def refused(data: Path, *, server: bool = True) -> SetupError:
    """Opening fails, leaves all files as they were, and gives the lock back."""
    before = {path: path.read_bytes() for path in data.iterdir() if path.suffix != ".lock"}
    store = at(data, server=server)
    with pytest.raises(SetupError) as caught:
        await store.open()
    lock = ServerLock(data)
    lock.acquire()
    lock.release()
    await store.close()
    assert {path: path.read_bytes() for path in before} == before
    assert caught.value.hint
    return caught.value


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- modes and names ----------------------------------------------------------------------------------------------


async def test_only_the_owner_may_look(store: SqliteStore, data: Path) -> None:
    await begin(store)
    assert mode(data) == 0o700
    assert {path.name for path in data.iterdir()} >= {"streamsrv.db", "streamsrv.db-wal", "server.lock"}
    assert {mode(path) for path in data.iterdir()} == {0o600}


async def test_a_closed_store_is_one_file(data: Path) -> None:
    path = await filled(data)
    assert {path.name for path in data.iterdir()} == {"streamsrv.db", "server.lock"}
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        assert connection.execute("SELECT count(*) FROM segments").fetchone() == (200,)


async def test_settings_of_the_connection(store: SqliteStore) -> None:
    with closing(schema.connect(store.path, busy_timeout_s=1.5, read_only=False)) as connection:
        found = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 1500}


async def test_tables_are_as_promised(store: SqliteStore) -> None:
    _, key = await begin(store)
    await store.keep_final(key, final(0))
    await store.end_stream(key, stats=StreamStats(), now_ms=NOW_MS + 1)
    with closing(sqlite3.connect(store.path)) as connection:
        assert connection.execute("SELECT * FROM interviews").fetchall() == [
            ("talk", "completed", None, NOW_MS, NOW_MS + 1, None, 1)
        ]
        names = [row[1] for row in connection.execute("PRAGMA table_info(interviews)")]
        assert names == ["_id", "status", "scheduledAt", "startedAt", "endedAt", "deletedAt", "revision"]
        plan = connection.execute(
            "EXPLAIN QUERY PLAN SELECT * FROM interviews WHERE status = 'scheduled' AND scheduledAt < 5"
        ).fetchall()
        assert "interviews_by_status (status=? AND scheduledAt<?)" in plan[0][3]
        assert connection.execute(
            "SELECT handoff, json_extract(document, '$.text'), stop FROM segments"
        ).fetchall() == [("[]", "segment 0", 16_000)]
        assert connection.execute("SELECT count(*) FROM progress").fetchone() == (0,)


async def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    store = at(tmp_path / "file")
    with pytest.raises(SetupError, match="cannot use the data directory"):
        await store.open()


async def test_a_store_is_opened_once(store: SqliteStore, data: Path) -> None:
    with pytest.raises(RuntimeError):
        await store.open()
    with pytest.raises(SetupError, match="another server"):
        await at(data).open()


# --- the server's role --------------------------------------------------------------------------------------------


async def test_a_second_server_is_told_who_is_first(store: SqliteStore, data: Path) -> None:
    second = at(data)
    with pytest.raises(SetupError, match=f"pid {os.getpid()}, since 20") as caught:
        await second.open()
    assert "data_dir" in caught.value.hint
    await second.close()
    await begin(store)
    with pytest.raises(SetupError):
        await at(data).open()


def test_a_dead_server_holds_nothing(data: Path) -> None:
    with child("hold", str(data)) as holder:
        assert holder.line() == "open"
        with (data / "server.lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder.kill(signal.SIGKILL)
        with child("hold", str(data)) as successor:
            assert successor.line() == "open"


async def test_the_lock_is_not_inherited_by_programs(store: SqliteStore, data: Path) -> None:
    with child("fds", str(data)) as other:
        assert other.line() == "[]"


async def test_others_read_beside_the_server(store: SqliteStore, data: Path) -> None:
    _, key = await begin(store)
    await store.keep_final(key, final(0))
    beside = at(data, server=False)
    await beside.open()
    assert [kept.final for kept in await beside.finals("talk")] == [final(0)]
    await store.keep_final(key, final(1))
    assert len(await beside.finals("talk")) == 2
    with pytest.raises(StoreUnavailable):
        await beside.keep_final(key, final(2))
    await beside.close()
    assert await store.keep_final(key, final(2))


async def test_others_read_after_a_crash(data: Path) -> None:
    with child("write", str(data)) as writer:
        written = [writer.line() for _ in range(20)]
        writer.kill(signal.SIGKILL)
    beside = at(data, server=False)
    await beside.open()
    assert {str(kept.final.segment) for kept in await beside.finals("talk")} >= set(written)
    await beside.close()


async def test_reading_needs_a_database(data: Path) -> None:
    data.mkdir(parents=True)
    assert "no transcripts" in (await refused(data, server=False)).message
    assert not (data / "streamsrv.db").exists()


# --- damaged, foreign, from the future ----------------------------------------------------------------------------


@pytest.mark.parametrize("server", [True, False])
async def test_garbage_is_refused(data: Path, server: bool) -> None:
    data.mkdir(parents=True)
    (data / "streamsrv.db").write_bytes(os.urandom(50_000))
    error = await refused(data, server=server)
    assert "damaged" in error.message
    assert "backup" in error.hint


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
async def test_a_truncated_file_is_refused(data: Path, share: float) -> None:
    path = await filled(data)
    os.truncate(path, int(path.stat().st_size * share))
    assert "damaged" in (await refused(data)).message


async def test_an_overwritten_page_is_refused(data: Path) -> None:
    path = await filled(data)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(os.urandom(4096))
    assert "damaged" in (await refused(data)).message


async def test_an_emptied_file_beside_its_log_is_refused(store: SqliteStore, data: Path, tmp_path: Path) -> None:
    await begin(store)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "streamsrv.db").touch()
    (copy / "streamsrv.db-wal").write_bytes((data / "streamsrv.db-wal").read_bytes())
    assert "write-ahead log" in (await refused(copy)).message


async def test_a_database_of_another_program_is_refused(data: Path) -> None:
    data.mkdir(parents=True)
    with closing(sqlite3.connect(data / "streamsrv.db")) as connection:
        connection.execute("CREATE TABLE recipes (name)")
    assert "another program" in (await refused(data)).message


async def test_one_version_newer_is_used_as_it_is(data: Path) -> None:
    path = await filled(data)
    newer = len(schema.MIGRATIONS) + 1
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("ALTER TABLE streams ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm'")
        connection.execute(f"PRAGMA user_version = {newer}")
    store = at(data)
    await store.open()
    resumed = await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)
    assert await store.keep_final(resumed.key, final(200))
    assert len(await store.finals("talk")) == 201
    await begin(store, stream="s2")
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (newer,)


@pytest.mark.parametrize("server", [True, False])
async def test_two_versions_newer_is_refused(data: Path, server: bool) -> None:
    path = await filled(data)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 2}")
    error = await refused(data, server=server)
    assert f"version {len(schema.MIGRATIONS) + 2}" in error.message
    assert "release" in error.hint


# --- migrations ---------------------------------------------------------------------------------------------------

NEXT = (*schema.MIGRATIONS, ("ALTER TABLE streams ADD COLUMN mood TEXT", "CREATE TABLE moods (name TEXT)"))
BROKEN = (*schema.MIGRATIONS, ("CREATE TABLE moods (name TEXT)", "ALTER TABLE nothing ADD COLUMN mood TEXT"))


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


async def test_an_older_database_is_migrated_and_still_readable(data: Path) -> None:
    path = await filled(data)
    schema.prepare(path, busy_timeout_s=1, migrations=NEXT)
    schema.prepare(path, busy_timeout_s=1, migrations=NEXT)
    assert version(path) == len(NEXT)
    store = at(data)
    await store.open()
    assert len(await store.finals("talk")) == 200
    await store.close()


async def test_an_interrupted_migration_leaves_the_old_version(data: Path) -> None:
    path = await filled(data)
    with pytest.raises(SetupError):
        schema.prepare(path, busy_timeout_s=1, migrations=BROKEN)
    assert version(path) == len(schema.MIGRATIONS)
    schema.prepare(path, busy_timeout_s=1, migrations=NEXT)
    assert version(path) == len(NEXT)


async def test_readers_do_not_migrate(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = await filled(data)
    monkeypatch.setattr(schema, "MIGRATIONS", NEXT)
    assert "older" in (await refused(data, server=False)).message
    assert version(path) == len(NEXT) - 1
