"""Deleting interviews, by hand and by age, with a wall clock wound by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamsrv import telemetry
from streamsrv.commands import Options
from streamsrv.errors import StoreUnavailable
from streamsrv.runtime import archive as module
from streamsrv.runtime.archive import DAY_MS, Archive
from streamsrv.runtime.engines import Engines
from streamsrv.runtime.fanout import Fanout
from streamsrv.runtime.recorder import Recorder
from streamsrv.runtime.settings import ArchiveSettings, SessionSettings, SpoolSettings
from streamsrv.runtime.spool import Spool
from streamsrv.runtime.streams import Services, Streams
from streamsrv.stores.base import StreamKey, StreamStats
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore, deletes
from tests.stores.builders import NOW_MS, begin, final
from tests.stores.contract_jobs import job
from tests.support.engines import CountingEngine


class Files:
    """Uploads that are told what to forget."""

    def __init__(self) -> None:
        self.forgotten: list[str] = []
        self.failing = False
        self.waiting: set[str] = set()
        self.swept = 0

    def holds(self, interview: str) -> bool:
        return interview in self.waiting

    async def forget(self, interview: str) -> None:
        if self.failing:
            raise OSError("a disk")
        self.forgotten.append(interview)

    async def sweep(self) -> None:
        self.swept += 1


class House:
    """A server's rooms without its door."""

    def __init__(self, folder: Path) -> None:
        self.now_ms = NOW_MS
        metrics = telemetry.Metrics("test")
        self.store = SqliteStore(SqliteSettings(data_dir=str(folder)))
        self.fanout = Fanout(self.store, metrics, most=10)
        self.recorder = Recorder(folder, ArchiveSettings())
        self.spool = Spool(folder / "spool", SpoolSettings(), self.store, metrics)
        services = Services(self.store, metrics, self.fanout, self.recorder, self.spool)
        engines = Engines([CountingEngine()], metrics)
        self.streams = Streams(services, engines, SessionSettings(), max_sessions=10)
        self.files = Files()

    def archive(self, retain_days: int = 0) -> Archive:
        return Archive(
            self.store,
            self.streams,
            self.fanout,
            self.recorder,
            self.spool,
            self.files,
            retain_days=retain_days,
            utc_ms=lambda: self.now_ms,
        )

    async def talked(self, interview: str, *, days_ago: float, ended: bool = True, record: bool = True) -> StreamKey:
        at_ms = NOW_MS - int(days_ago * DAY_MS)
        _, key = await begin(self.store, interview, f"s-{interview}", now_ms=at_ms)
        await self.store.keep_final(key, final(0))
        if ended:
            await self.store.end_stream(key, stats=StreamStats(), now_ms=at_ms)
        if record:
            recording = self.recorder.begin(key, Options(record=True), 0, lambda *_: None)
            assert recording is not None
            recording.take(0, bytes(32_000))
            recording.close()
        return key

    async def left(self) -> list[str]:
        return sorted(one.interview.id for one in await self.store.interviews(limit=100))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    found = House(tmp_path)
    await found.store.open()
    yield found
    await found.recorder.close()
    await found.store.close()


async def test_everything_of_an_interview_goes(house: House) -> None:
    await house.talked("talk", days_ago=0)
    await house.talked("other", days_ago=0)
    assert await house.archive().delete("talk")
    assert await house.left() == ["other"]
    assert await house.recorder.kept("talk") == ()
    assert len(await house.recorder.kept("other")) == 1
    assert house.files.forgotten == ["talk"]
    assert not await house.archive().delete("talk")


async def test_files_that_cannot_go_keep_the_interview_so_that_it_can_be_deleted_again(house: House) -> None:
    await house.talked("talk", days_ago=0)
    house.files.failing = True
    with pytest.raises(StoreUnavailable):
        await house.archive().delete("talk")
    assert await house.left() == ["talk"]
    house.files.failing = False
    assert await house.archive().delete("talk")


async def test_completed_interviews_go_when_they_are_too_old(house: House) -> None:
    for name, days_ago in (("old", 31), ("older", 300), ("young", 29)):
        await house.talked(name, days_ago=days_ago)
    await house.talked("live", days_ago=99, ended=False)
    archive = house.archive(retain_days=30)
    assert await archive.sweep() == 2
    assert await house.left() == ["live", "young"]
    assert await house.recorder.kept("old") == ()
    assert await archive.sweep() == 0
    house.now_ms += 2 * DAY_MS
    assert await archive.sweep() == 1
    assert await house.left() == ["live"]


async def test_zero_days_keep_them_for_ever(house: House) -> None:
    await house.talked("old", days_ago=10_000)
    assert await house.archive(retain_days=0).sweep() == 0
    assert await house.left() == ["old"]


async def test_it_goes_in_small_bites(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BITE", 2)
    for number in range(5):
        await house.talked(f"i{number}", days_ago=60 + number, record=False)
    archive = house.archive(retain_days=30)
    assert [await archive.sweep() for _ in range(4)] == [2, 2, 1, 0]
    assert house.files.forgotten == ["i4", "i3", "i2", "i1", "i0"]


async def test_an_interview_that_comes_to_life_meanwhile_stays(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.talked("talk", days_ago=60)
    expired = house.store.expired

    async def late(before_ms: int, *, limit: int) -> tuple[str, ...]:
        found = await expired(before_ms, limit=limit)
        await begin(house.store, "talk", "again", now_ms=NOW_MS)
        return found

    monkeypatch.setattr(house.store, "expired", late)
    assert await house.archive(retain_days=30).sweep() == 0
    assert await house.left() == ["talk"]


async def test_an_interview_a_file_waits_for_stays(house: House) -> None:
    await house.talked("talk", days_ago=60)
    house.files.waiting = {"talk"}
    archive = house.archive(retain_days=30)
    assert await archive.sweep() == 0
    assert await house.left() == ["talk"]
    house.files.waiting = set()
    assert await archive.sweep() == 1


async def test_a_file_that_was_refused_goes_as_an_interview_would(house: House) -> None:
    ended = NOW_MS - 31 * DAY_MS
    await house.store.keep_job(job("j", state="failed", interview="refused", ended_ms=ended))
    assert await house.archive(retain_days=0).sweep() == 0
    assert await house.store.job("j") is not None
    assert await house.archive(retain_days=30).sweep() == 1
    assert await house.store.job("j") is None
    assert house.files.forgotten == ["refused"]


async def test_a_deletion_that_was_interrupted_is_finished(house: House) -> None:
    await house.talked("talk", days_ago=0)
    await house.store._writer.submit(lambda connection: deletes.doom(connection, "talk", now_ms=NOW_MS))
    assert await house.store.interview("talk") is None
    assert await house.archive(retain_days=0).sweep() == 1
    assert await house.store.expired(NOW_MS * 2, limit=9) == ()


async def test_the_sweeper_lives_through_a_store_that_is_away(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    answers = iter([None, 2, 0])
    archive = house.archive(retain_days=1)

    async def sweep() -> int:
        answer = next(answers)
        if answer is None:
            raise StoreUnavailable("away")
        return answer

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(archive, "sweep", sweep)
    monkeypatch.setattr(asyncio, "sleep", pause)
    with pytest.raises(asyncio.CancelledError):
        await archive.run()
    assert pauses == [module.SWEEP_EVERY_S, module.PAUSE_S, module.SWEEP_EVERY_S]
    assert house.files.swept == 2, "files that nobody owns go on the same rounds"


async def test_recordings_of_interviews_another_node_deleted_go(house: House) -> None:
    """The store is shared, the folder of recordings is not."""
    for interview in ("gone", "stays"):
        await house.talked(interview, days_ago=1)
    await house.recorder.written()
    assert sorted(await house.recorder.interviews()) == ["gone", "stays"]
    archive = house.archive()
    assert await archive.sweep_recordings() == 0
    assert await house.store.delete_interview("gone")
    assert await archive.sweep_recordings() == 1
    assert await house.recorder.interviews() == ("stays",)
    assert not house.recorder.folder("gone").exists()
    assert len(await house.recorder.kept("stays")) == 1


async def test_a_sweep_looks_for_some_and_the_next_for_the_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK", 2)
    for number in range(5):
        await house.talked(f"i{number}", days_ago=1)
    await house.recorder.written()
    for number in range(5):
        await house.store.delete_interview(f"i{number}")
    archive = house.archive()
    assert [await archive.sweep_recordings() for _ in range(4)] == [2, 2, 1, 0]
