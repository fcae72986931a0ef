"""A deletion that a crash interrupts: gone for readers at once, finished later, never half an interview."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from streamsrv.errors import Conflict, NotFound
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore, deletes
from tests.stores.builders import NOW_MS, begin, final, texts, token


async def opened(folder: Path) -> SqliteStore:
    store = SqliteStore(SqliteSettings(data_dir=str(folder)))
    await store.open()
    return store


async def interrupted(folder: Path, *, bites: int) -> SqliteStore:
    """A store that was killed in the middle of a deletion, opened again."""
    store = await opened(folder)
    _, key = await begin(store)
    for number in range(10):
        await store.keep_final(key, final(number))
    await begin(store, "other", "s2")
    await store.close()
    with closing(sqlite3.connect(store.path)) as connection, connection:
        assert deletes.doom(connection, "talk", now_ms=NOW_MS)
        for _ in range(bites):
            assert not deletes.bite(connection, "talk")
    return await opened(folder)


@pytest.mark.parametrize("bites", [0, 1, 3])
async def test_it_is_gone_for_readers_and_found_by_who_finishes_it(
    tmp_path: Path, bites: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletes, "BITE", 2)
    store = await interrupted(tmp_path, bites=bites)
    try:
        assert await store.interview("talk") is None
        assert (await store.streams("talk"), await texts(store)) == ((), [])
        assert [key.stream for key in await store.left_streams()] == ["s2"]
        with pytest.raises(NotFound):
            await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)
        with pytest.raises(Conflict):
            await begin(store, stream="s3")
        assert await store.expired(0, limit=9) == ("talk",)
        assert await store.delete_interview("talk")
        assert await store.expired(0, limit=9) == ()
        await begin(store, stream="s3")
        assert await texts(store) == []
    finally:
        await store.close()


async def test_a_session_that_outlives_the_deletion_is_outdated(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    try:
        _, key = await begin(store)
        await store._writer.submit(lambda connection: deletes.doom(connection, "talk", now_ms=NOW_MS))
        assert not await store.keep_final(key, final(0))
        assert not await store.keep_progress(key, (0,), ())
    finally:
        await store.close()
