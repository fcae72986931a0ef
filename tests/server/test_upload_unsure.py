"""A store that does not answer when an upload is recorded: whether it is, nobody knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamsrv.errors import StoreUnavailable
from streamsrv.server.jobs import JOBS
from streamsrv.server.transcripts import STORE
from streamsrv.stores.base import Job
from tests.server.test_upload import TALK, desk
from tests.support.recordings import wav
from tests.support.watching import until


@pytest.mark.parametrize("recorded", [True, False])
async def test_an_upload_that_was_refused_leaves_no_job_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    async with desk(tmp_path) as here:
        store = here.server.app[STORE]
        keep, kept = store.keep_job, list[Job]()

        async def unanswered(job: Job) -> None:
            kept.append(job)
            if len(kept) > 1 or recorded:
                await keep(job)
            if len(kept) < 3:
                raise StoreUnavailable("no answer in time")

        monkeypatch.setattr(store, "keep_job", unanswered)
        status, body, _ = await here.send(wav(TALK))
        assert (status, body["error"]["code"]) == (503, "store_unavailable")
        await until(lambda: not here.server.app[JOBS]._works)
        assert await store.open_jobs() == ()
        record = await store.job(kept[0].id)
        assert record is not None
        assert record.state == "cancelled"
        assert here.files() == []
        status, body, _ = await here.send(wav(TALK))
        assert (status, len(body["segments"])) == (200, 2), "sent again, it is heard"
