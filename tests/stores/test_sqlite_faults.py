"""SIGKILL, full disks, too much work: nothing acknowledged is lost, and work goes on afterwards."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamsrv.errors import Conflict, StoreUnavailable
from streamsrv.stores.base import Anchor, StreamStats
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore, schema, writes
from streamsrv.stores.sqlite.writer import Writer
from tests.stores.builders import NOW_MS, begin, final, token
from tests.stores.children import child


@pytest.fixture
def transactions() -> list[float]:
    return []


@pytest.fixture
async def store(tmp_path: Path, transactions: list[float]) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(
        SqliteSettings(data_dir=str(tmp_path / "data"), max_waiting_writes=300), observe=transactions.append
    )
    await store.open()
    yield store
    await store.close()


# --- killed -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_sigkill_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Rounds of kill -9 at random moments; the successor goes on behind what is stored."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 -- shown by pytest when it fails
    rng = random.Random(seed)
    acknowledged: list[int] = []
    for _ in range(6):
        with child("write", str(tmp_path)) as writer:
            acknowledged += [int(writer.line()) for _ in range(rng.randrange(1, 250))]
            writer.kill(signal.SIGKILL)
            acknowledged += map(int, writer.rest())
        kept = asyncio.run(_kept(tmp_path))
        assert set(acknowledged) - set(kept) == set()
        assert kept == list(range(len(kept))), "once each, in order"


async def _kept(data_dir: Path) -> list[int]:
    store = SqliteStore(SqliteSettings(data_dir=str(data_dir)))
    await store.open()
    resumed = await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)
    await store.close()
    return [one.segment for one in resumed.finals]


# --- full disks ---------------------------------------------------------------------------------------------------


async def test_a_full_disk_acknowledges_nothing_and_is_survived(small_disk: Path) -> None:
    store = SqliteStore(SqliteSettings(data_dir=str(small_disk / "data")))
    await store.open()
    _, key = await begin(store)
    ballast = small_disk / "ballast"
    for _ in range(3):
        begun = len(await store.finals("talk"))
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        ballast.write_bytes(b"x" * (free - 40_960))
        kept, refused = await _fill(store, begun)
        assert refused.retryable
        assert "make room" in refused.hint
        with pytest.raises(StoreUnavailable):
            await store.keep_final(key, final(kept, text="x" * 60_000))
        assert len(await store.finals("talk")) == kept, "reading goes on"
        ballast.unlink()
        for segment in range(kept, kept + 10):
            assert await store.keep_final(key, final(segment))
        found = [one.final.segment for one in await store.finals("talk")]
        assert found == list(range(kept + 10))
    assert await store.end_stream(key, stats=StreamStats(), now_ms=NOW_MS)
    await store.close()


async def _fill(store: SqliteStore, segment: int) -> tuple[int, StoreUnavailable]:
    """Keep finals until there is no room; how many there are then."""
    (stream,) = await store.streams("talk")
    _, key = await begin(store, stream=stream.id)
    while True:
        try:
            assert await store.keep_final(key, final(segment, text="word " * 200))
        except StoreUnavailable as error:
            return segment, error
        segment += 1


def test_writes_the_system_refuses_are_survived(tmp_path: Path) -> None:
    """An I/O error instead of a full disk: the writer goes on with a new connection."""
    with child("limited", str(tmp_path)) as limited:
        assert limited.rest() == ["True", "True", "[0]", "True", "[0, 1, 2, 3, 4, 5]"]


@pytest.fixture
async def small_writer(tmp_path: Path) -> AsyncIterator[Writer]:
    """A writer whose database may have eight pages of 4 KiB, with a table ``things``."""
    path = tmp_path / "small.db"
    schema.create_file(path)

    def connect() -> sqlite3.Connection:
        connection = schema.connect(path, busy_timeout_s=1, read_only=False)
        connection.execute("PRAGMA max_page_count = 8")
        return connection

    def prepare() -> None:
        connection = connect()
        connection.execute("CREATE TABLE things (name TEXT UNIQUE)")
        connection.close()

    writer = Writer(prepare=prepare, connect=connect, max_waiting=100)
    await writer.start()
    yield writer
    await writer.stop()


def put(writer: Writer, *names: str) -> asyncio.Future[int]:
    """Insert all, in one write."""

    def work(connection: sqlite3.Connection) -> int:
        for name in names:
            connection.execute("INSERT INTO things VALUES (?)", (name,))
        return len(names)

    return writer.submit(work)


async def names_of(writer: Writer) -> list[str]:
    found = await writer.submit(lambda connection: connection.execute("SELECT name FROM things").fetchall())
    return sorted(name for (name,) in found)


async def test_no_room_fails_the_whole_group_and_what_waits(
    small_writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's later write may overtake an earlier one that failed."""
    monkeypatch.setattr("streamsrv.stores.sqlite.writer.MAX_GROUP", 2)
    submitted = threading.Event()
    gate = small_writer.submit(lambda _: submitted.wait(10))
    waiting = [put(small_writer, name) for name in ("gate's", "a", "x" * 100_000, "b", "c")]
    submitted.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert await gate
    kinds = [type(answer) for answer in answers]
    assert kinds[-3:] == [StoreUnavailable] * 3, "the one without room, and those behind it"
    stored = [name for name, kind in zip(["gate's", "a"], kinds, strict=False) if kind is int]
    assert await names_of(small_writer) == sorted(stored)
    assert await put(small_writer, "d") == 1
    assert await names_of(small_writer) == sorted([*stored, "d"])


async def test_a_broken_connection_is_replaced(small_writer: Writer) -> None:
    def spoil(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA query_only = 1")

    await small_writer.submit(spoil)
    with pytest.raises(StoreUnavailable, match="READONLY"):
        await put(small_writer, "a")
    assert await put(small_writer, "a") == 1


async def test_a_failing_write_takes_back_all_its_statements(small_writer: Writer) -> None:
    writes = [put(small_writer, *names) for names in (("a", "a!"), ("b", "b!"), ("new", "b!"), ("c", "c!"))]
    answers = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(answer) for answer in answers] == [int, int, sqlite3.IntegrityError, int]
    assert await names_of(small_writer) == ["a", "a!", "b", "b!", "c", "c!"]


# --- much at once -------------------------------------------------------------------------------------------------


async def test_what_waits_together_is_committed_together(store: SqliteStore, transactions: list[float]) -> None:
    _, key = await begin(store)
    transactions.clear()
    assert all(await asyncio.gather(*(store.keep_final(key, final(segment)) for segment in range(200))))
    assert 1 <= len(transactions) <= 50, "one fsync each would be 200"


async def test_a_stream_is_not_taken_over_for_ever(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writes, "MAX_EPOCHS", 3)
    await begin(store)
    for _ in range(2):
        resumed = await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)
    with pytest.raises(Conflict, match="3 times"):
        await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)
    assert await store.keep_final(resumed.key, final(0)), "its owner goes on"


async def test_anchors_have_a_bound(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writes, "MAX_ANCHORS", 3)
    _, key = await begin(store)
    anchors = tuple(Anchor(position=position, utc_ms=NOW_MS) for position in range(5))
    assert await store.keep_progress(key, (1_920,), anchors)
    (stream,) = await store.streams("talk")
    assert (stream.anchors, stream.restarts) == (anchors[:3], (1_920,))


async def test_too_many_waiting_writes_are_refused(store: SqliteStore) -> None:
    _, key = await begin(store)
    writes = [asyncio.ensure_future(store.keep_final(key, final(segment))) for segment in range(3_000)]
    answers = await asyncio.gather(*writes, return_exceptions=True)
    kept = [segment for segment, answer in enumerate(answers) if answer is True]
    assert {type(answer) for answer in answers} == {bool, StoreUnavailable}
    assert [one.final.segment for one in await store.finals("talk")] == kept


async def test_too_many_waiting_reads_are_refused(store: SqliteStore) -> None:
    reads = [asyncio.ensure_future(store.finals("talk")) for _ in range(1_000)]
    answers = await asyncio.gather(*reads, return_exceptions=True)
    assert {type(answer) for answer in answers} == {tuple, StoreUnavailable}
    assert await store.finals("talk") == ()


async def test_another_programs_lock_is_waited_for_then_told(tmp_path: Path) -> None:
    store = SqliteStore(SqliteSettings(data_dir=str(tmp_path), busy_timeout_s=0.01))
    await store.open()
    _, key = await begin(store)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="SQLITE_BUSY"):
        await store.keep_final(key, final(0))
    other.execute("ROLLBACK")
    other.close()
    assert await store.keep_final(key, final(0))
    await store.close()
