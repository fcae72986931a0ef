"""A store that does not answer when an upload is recorded: whether it is, nobody knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from streamsrv.errors import StoreUnavailable
from streamsrv.runtime import unsure
from streamsrv.server.jobs import JOBS
from streamsrv.server.transcripts import STORE
from streamsrv.stores.base import Job
from tests.server.test_upload import TALK, Desk, desk
from tests.support.recordings import wav
from tests.support.watching import until

UNANSWERED = StoreUnavailable("no answer in time")


class Deaf:
    """The store takes records, or not, and does not say so."""

    def __init__(self, here: Desk, monkeypatch: pytest.MonkeyPatch, *, records: bool) -> None:
        self.store = here.server.app[STORE]
        self.asked: list[Job] = []
        self.away = True
        self._records = records
        self._keep, self._job = self.store.keep_job, self.store.job
        monkeypatch.setattr(self.store, "keep_job", self._keep_job)
        monkeypatch.setattr(self.store, "job", self._find)

    async def _keep_job(self, job: Job) -> None:
        self.asked.append(job)
        if self._records or not self.away:
            await self._keep(job)
        if self.away:
            raise UNANSWERED

    async def _find(self, name: str) -> Job | None:
        if self.away:
            raise UNANSWERED
        return await self._job(name)

    async def record(self, job: Job) -> None:
        await self._keep(job)


@asynccontextmanager
async def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, records: bool
) -> AsyncIterator[tuple[Desk, Deaf]]:
    monkeypatch.setattr(unsure, "LOOK_S", 0.02)
    async with desk(tmp_path) as here:
        deaf = Deaf(here, monkeypatch, records=records)
        status, body, _ = await here.send(wav(TALK))
        assert (status, body["error"]["code"]) == (503, "store_unavailable")
        assert here.files() == []
        yield here, deaf


async def cleared(here: Desk) -> None:
    """Nothing is looked for any more."""
    await until(lambda: here.server.app[JOBS]._unsure._task is None)


async def test_a_record_that_was_made_unseen_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with refused(tmp_path, monkeypatch, records=True) as (here, deaf):
        await asyncio.sleep(0.1)
        assert len(await deaf.store.open_jobs()) == 1
        deaf.away = False
        await cleared(here)
        assert await deaf.store.open_jobs() == ()
        record = await deaf.store.job(deaf.asked[0].id)
        assert record is not None
        assert record.state == "cancelled"
        status, body, _ = await here.send(wav(TALK))
        assert (status, len(body["segments"])) == (200, 2), "sent again, it is heard"


async def test_none_is_made_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsure, "LATE_S", 0.2)
    async with refused(tmp_path, monkeypatch, records=False) as (here, deaf):
        deaf.away = False
        await cleared(here)
        assert len(deaf.asked) == 1
        assert await deaf.store.job(deaf.asked[0].id) is None


async def test_a_write_that_arrives_late_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with refused(tmp_path, monkeypatch, records=False) as (here, deaf):
        deaf.away = False
        await asyncio.sleep(0.1)
        await deaf.record(deaf.asked[0])
        await cleared(here)
        assert await deaf.store.open_jobs() == ()


async def test_meanwhile_the_server_may_leave_and_others_are_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with refused(tmp_path, monkeypatch, records=True) as (here, deaf):
        jobs = here.server.app[JOBS]
        assert not jobs.holds("talk")
        assert jobs._idle == jobs._settings.max_running
        async with asyncio.timeout(2.0):
            await jobs.close()
        deaf.away = False
    async with desk(tmp_path) as here:  # what is left is ended by the next start
        job = deaf.asked[0].id
        ended = await here.until(f"/transcription/jobs/{job}", "failed", "cancelled")
        assert ended["state"] in ("failed", "cancelled")
