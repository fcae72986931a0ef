"""Jobs in SQLite: their number is bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamsrv.stores.sqlite import SqliteSettings, SqliteStore, jobs
from tests.stores.contract_jobs import job


async def test_old_ended_jobs_make_room_and_open_ones_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_ENDED", 3)
    store = SqliteStore(SqliteSettings(data_dir=str(tmp_path)))
    await store.open()
    try:
        await store.keep_job(job("first"))
        for number in range(6):
            await store.keep_job(job(f"j{number}", state="done"))
        left = [name for name in ("first", *(f"j{n}" for n in range(6))) if await store.job(name) is not None]
        assert left == ["first", "j3", "j4", "j5"]
    finally:
        await store.close()
