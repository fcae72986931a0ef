"""The SQLite store keeps the outbox's contract, from the first version of its file on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from streamsrv.errors import StoreUnavailable
from streamsrv.stores.base import StreamStats
from streamsrv.stores.handoff import Lease
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore, deletes, schema
from streamsrv.stores.sqlite.handoffs import Order
from tests.stores.builders import NOW_MS, begin, final
from tests.stores.contract_outbox import SINKS, MakeStore, OutboxContract, places, segments, waiting


class TestSqliteOutbox(OutboxContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> MakeStore:
        return lambda: SqliteStore(SqliteSettings(data_dir=str(tmp_path / "data")))


async def opened(folder: Path, sinks: tuple[str, ...] = SINKS) -> SqliteStore:
    store = SqliteStore(SqliteSettings(data_dir=str(folder)))
    store.hand_to(sinks)
    await store.open()
    return store


def of_version_3(folder: Path) -> Path:
    """A file as the version before wrote it: a completed interview, and one that is live."""
    folder.mkdir(exist_ok=True)
    path = folder / schema.DATABASE_NAME
    schema.create_file(path)
    schema.prepare(path, busy_timeout_s=1, migrations=schema.MIGRATIONS[:3])
    with closing(sqlite3.connect(path)) as connection, connection:
        for interview, status in (("over", "completed"), ("talk", "live")):
            connection.execute("INSERT INTO interviews (_id, status, startedAt) VALUES (?, ?, 1)", (interview, status))
            connection.execute(
                """INSERT INTO streams (_id, interview, ord, status, tokenHash, options, engine, epoch, epochs,
                    restarts, startedAt) VALUES (?1, ?2, 1, ?3, x'00', '{}', 'scripted', 1,
                    '[{"epoch":1,"begins":[0]}]', '[0]', 1)""",
                (f"s-{interview}", interview, "ended" if status == "completed" else "live"),
            )
            connection.execute(
                """INSERT INTO segments (interview, stream, epoch, channel, segment, utterance, start, stop, document)
                    VALUES (?1, ?2, 1, 0, 0, 0, 0, 16000, ?3)""",
                (
                    interview,
                    f"s-{interview}",
                    """{"event":"final","channel":0,"utterance":0,"segment":0,"start":0,"stop":16000,"text":"old",
                    "cause":"vad","endpoint":true,"engine":"scripted"}""",
                ),
            )
        connection.execute("INSERT INTO progress VALUES ('s-talk', 1, '[0]')")
    return path


async def test_a_file_of_the_version_before_goes_on_and_hands_on_what_is_new(tmp_path: Path) -> None:
    path = of_version_3(tmp_path)
    store = await opened(tmp_path)
    try:
        assert [kept.final.text for kept in await store.finals("over")] == ["old"]
        assert await store.figures() == ()
        (left,) = await store.left_streams()
        key = (await store.resume_stream(left.stream, b"\0", now_ms=NOW_MS)).key
        assert await store.keep_final(key, final(1))
        assert await segments(store) == [1]
        assert await store.end_stream(key, stats=StreamStats(), now_ms=NOW_MS)
        assert len(await waiting(store)) == 2
    finally:
        await store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)


async def test_the_release_before_may_delete_what_waits(tmp_path: Path) -> None:
    """It knows nothing of handoffs, and row numbers come again."""
    store = await opened(tmp_path)
    _, key = await begin(store)
    await store.keep_final(key, final(0))
    await store.close()
    with closing(sqlite3.connect(store.path)) as connection, connection:
        for table in ("segments", "progress", "streams", "interviews"):
            connection.execute(f"DELETE FROM {table}")
    store = await opened(tmp_path, ())
    _, key = await begin(store, "other", "s2")
    await store.keep_final(key, final(7))
    assert await store.due("kafka", limit=9) == ()
    await store.close()


async def test_a_server_without_sinks_stores_by_one_statement(tmp_path: Path) -> None:
    store = await opened(tmp_path, ())
    statements: list[str] = []
    try:
        _, key = await begin(store)
        await store._writer.submit(lambda connection: connection.set_trace_callback(statements.append))
        await store.keep_final(key, final(0))
        await store._writer.submit(lambda connection: connection.set_trace_callback(None))
    finally:
        await store.close()
    words = [statement.split()[0] for statement in statements]
    assert words[words.index("BEGIN") :][:3] == ["BEGIN", "INSERT", "COMMIT"]


async def test_a_final_and_its_handoffs_are_one_transaction(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    try:
        _, key = await begin(store)
        await store._writer.submit(
            lambda connection: connection.execute(
                "CREATE TEMP TRIGGER no BEFORE INSERT ON handoffs BEGIN SELECT raise(ABORT, 'no'); END"
            ).close()
        )
        with pytest.raises((sqlite3.Error, StoreUnavailable)):
            await store.keep_final(key, final(0))
        assert await store.finals("talk") == ()
    finally:
        await store.close()


async def test_a_doomed_interviews_finals_wait_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletes, "BITE", 2)
    store = await opened(tmp_path)
    _, key = await begin(store)
    for number in range(10):
        await store.keep_final(key, final(number))
    await store.close()
    with closing(sqlite3.connect(store.path)) as connection, connection:
        order = Order('["kafka","webhook"]', NOW_MS)
        assert deletes.doom(connection, "talk", now_ms=NOW_MS, order=order)
        assert not deletes.bite(connection, "talk")
    store = await opened(tmp_path)
    try:
        assert len(await waiting(store)) == 1
        await store.handed("kafka", "talk", await places(store))
        assert await waiting(store) == []
        assert await store.delete_interview("talk")
        assert await store.due("kafka", limit=9) == ()
        assert len(await waiting(store, "webhook")) == 1
    finally:
        await store.close()


async def test_nobody_holds_a_lease_over_a_restart(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    assert await store.lease("kafka", "talk", Lease(node="a", until_ms=1 << 50)) is None
    await store.close()
    store = await opened(tmp_path)
    try:
        assert await store.lease("kafka", "talk", Lease(node="b", until_ms=2)) is None
    finally:
        await store.close()


async def test_due_leaps_over_backlogs(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    try:
        plan = await store._readers.run(
            lambda connection: connection.execute(
                """EXPLAIN QUERY PLAN SELECT min(interview) FROM handoffs
                    WHERE sink = 'kafka' AND state = 'pending' AND interview > 'a'"""
            ).fetchall()
        )
        assert "handoffs_by_sink (sink=? AND state=? AND interview>?)" in plan[0][3]
    finally:
        await store.close()
