"""What every store must do with jobs; part of ``StoreContract``."""

from __future__ import annotations

import msgspec
import pytest

from streamsrv.commands import Options
from streamsrv.stores.base import OPEN_JOBS, Job, JobError, JobState, TranscriptStore
from tests.stores.builders import NOW_MS, begin


def job(name: str, *, state: JobState = "queued", interview: str = "talk", **more: object) -> Job:
    made = Job(
        id=name,
        interview=interview,
        state=state,
        options=Options(language="en-US", multichannel=True, speaker="Zoë \N{SNOWMAN}"),
        engine="scripted",
        stream=f"st-{name}",
        token_hash=bytes(range(32)),
        spooled=f"{name}.upload",
        filename="../a \N{SNOWMAN}.wav",
        size_bytes=1 << 40,
        created_ms=NOW_MS,
    )
    return msgspec.structs.replace(made, **more)


class JobContract:
    """Promises about jobs."""

    async def test_a_job_comes_back_as_it_was(self, store: TranscriptStore) -> None:
        assert await store.job("j") is None
        error = JobError(code="bad_media", message="it cannot", hint="try", http_status=422)
        kept = job("j", state="failed", error=error, audio_ms=5, duration_ms=7, warnings=("short",), attempts=2)
        await store.keep_job(kept)
        assert await store.job("j") == kept

    async def test_open_jobs_come_in_the_order_they_were_first_kept(self, store: TranscriptStore) -> None:
        for name in ("c", "a", "b"):
            await store.keep_job(job(name))
        await store.keep_job(job("c", state="running"))
        await store.keep_job(job("a"))
        assert [(one.id, one.state) for one in await store.open_jobs()] == [
            ("c", "running"),
            ("a", "queued"),
            ("b", "queued"),
        ]

    @pytest.mark.parametrize("state", ["done", "failed", "cancelled"])
    async def test_a_job_that_has_ended_is_found_but_not_open(self, store: TranscriptStore, state: JobState) -> None:
        assert state not in OPEN_JOBS
        await store.keep_job(job("j"))
        await store.keep_job(job("j", state=state))
        assert await store.open_jobs() == ()
        found = await store.job("j")
        assert found is not None
        assert found.state == state

    async def test_jobs_need_no_interview_and_go_with_theirs(self, store: TranscriptStore) -> None:
        await store.keep_job(job("j"))
        await store.keep_job(job("k", interview="other"))
        assert await store.interview("talk") is None
        await begin(store)
        assert await store.delete_interview("talk")
        assert await store.job("j") is None
        assert await store.job("k") is not None

    async def test_refused_files_expire_though_their_interview_never_was(self, store: TranscriptStore) -> None:
        await store.keep_job(job("old", state="failed", interview="refused", ended_ms=NOW_MS - 9))
        await store.keep_job(job("new", state="failed", interview="refused", ended_ms=NOW_MS - 3))
        await store.keep_job(job("open", state="queued", interview="waiting"))
        await store.keep_job(job("heard", state="done", ended_ms=NOW_MS - 9))
        await begin(store)
        assert await store.expired(NOW_MS - 3, limit=9) == ()
        assert await store.expired(NOW_MS, limit=9) == ("refused",)
        assert await store.delete_interview("refused")
        assert await store.expired(NOW_MS, limit=9) == ()
        assert [await store.job(name) for name in ("old", "new")] == [None, None]
        assert await store.job("open") is not None

    async def test_the_stream_of_an_open_job_is_left_to_its_job(self, store: TranscriptStore) -> None:
        for name in ("j", "k"):
            _, key = await begin(store, stream=f"st-{name}")
            await store.keep_job(job(name, state="running"))
        assert await store.left_streams() == ()
        await store.keep_job(job("k", state="failed"))
        assert await store.left_streams() == (key,)
