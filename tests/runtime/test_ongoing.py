"""What fails again and again is told, and does not fill the log."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamsrv import telemetry
from streamsrv.errors import StoreUnavailable
from streamsrv.facts import ChannelStart
from streamsrv.runtime import job_work, keeper
from streamsrv.runtime.ongoing import AGAIN_S, Ongoing
from streamsrv.runtime.spool import Spool
from streamsrv.stores.base import StreamKey
from streamsrv.stores.sqlite import SqliteStore
from tests.runtime.stage import Stage
from tests.runtime.test_spool import number, until
from tests.server.test_upload import desk
from tests.support.recordings import wav
from tests.support.speech import silence, voice

TALK = voice(1.0) + silence(1.2)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All lines, as they are written."""
    text = io.StringIO()
    before = telemetry.use(telemetry.Sink(text, threaded=False))
    yield text
    telemetry.use(before)


def told(log: io.StringIO, *events: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    return [line for line in lines if line["event"] in events]


# --- the rule -------------------------------------------------------------------------------------------------------


class Hour:
    """An hour of trouble, with a clock wound by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.trouble = Ongoing(telemetry.logger("x"), "x.failed", over="x.well", now=lambda: self.now_s)

    def came(self, times: int, every_s: float) -> None:
        for _ in range(times):
            self.trouble.came("full")
            self.now_s += every_s


def test_it_is_told_at_first_then_once_a_minute_and_when_it_is_over(log: io.StringIO) -> None:
    hour = Hour()
    hour.came(150, every_s=1.0)
    hour.trouble.passed()
    hour.trouble.passed()
    lines = told(log, "x.failed", "x.well")
    assert [(line["event"], line["level"], line["times"]) for line in lines] == [
        ("x.failed", "warning", 1),
        ("x.failed", "warning", 60),
        ("x.failed", "warning", 60),
        ("x.well", "info", 29),
    ]
    assert lines[0]["error"] == "full"


def test_what_comes_and_goes_is_told_once_a_minute_too(log: io.StringIO) -> None:
    hour = Hour()
    for _ in range(100):
        hour.came(1, every_s=1.0)
        hour.trouble.passed()
    assert [line["event"] for line in told(log, "x.failed", "x.well")] == ["x.failed", "x.well"] * 2


def test_what_never_failed_is_never_over(log: io.StringIO) -> None:
    Hour().trouble.passed()
    assert log.getvalue() == ""


def test_trouble_that_comes_back_later_is_told_again(log: io.StringIO) -> None:
    hour = Hour()
    hour.came(1, every_s=AGAIN_S)
    hour.trouble.passed()
    hour.came(1, every_s=1.0)
    assert [line["times"] for line in told(log, "x.failed")] == [1, 1]


# --- where it holds -------------------------------------------------------------------------------------------------


async def test_a_job_that_waits_for_the_store_says_so_once(
    tmp_path: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_work, "PAUSE_S", 0.001)
    begin, refusals = SqliteStore.begin_stream, iter(range(10))

    async def away(self: SqliteStore, **begun: Any) -> Any:
        for _ in refusals:
            raise StoreUnavailable("the store is away")
        return await begin(self, **begun)

    monkeypatch.setattr(SqliteStore, "begin_stream", away)
    async with desk(tmp_path) as here:
        status, body, location = await here.send(wav(TALK))
        assert (status, len(body["segments"])) == (200, 1)
    assert location is not None
    lines = told(log, "job.waits", "job.waits_no_more", "job.ended")
    assert [(line["event"], line["job"]) for line in lines] == [
        (event, location.rsplit("/", 1)[-1]) for event in ("job.waits", "job.waits_no_more", "job.ended")
    ]
    assert lines[0]["error"] == "store_unavailable"
    assert lines[1]["times"] == 9


async def test_a_store_that_is_away_is_told_once_for_all_sessions(
    log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "PAUSES_S", (0.002,))
    stage = await Stage().begin()
    first = stage.driver
    await stage.services.store.begin_stream(
        interview="i", stream="other", token_hash=b"hash", options=stage.options, engine="counting", now_ms=0
    )
    stage.drive(StreamKey(interview="i", stream="other", epoch=1), (ChannelStart(),))
    store = stage.services.store
    store.away = True
    for driver in (first, stage.driver):
        await driver.audio(silence(0.3) + TALK)
    await until(lambda: len(told(log, "session.degraded")) == 2)
    store.away = False
    await until(lambda: len(told(log, "session.degraded")) == 4)
    lines = told(log, "store.away", "store.back")
    assert [(line["event"], line["times"]) for line in lines] == [("store.away", 1), ("store.back", 1)]
    assert lines[0]["error"].startswith("StoreUnavailable")


def _full(fd: int) -> None:
    raise OSError(28, "no space")


async def test_a_full_disk_under_the_spool_is_told_once_and_when_there_is_room(
    tmp_path: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "PAUSES_S", (0.002,))
    stage = Stage(spool=tmp_path / "spool")
    await stage.services.spool.start()
    await stage.begin()
    stage.services.store.away = True
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", _full)
        await stage.send(silence(0.3) + TALK)
        await until(lambda: number(stage.services.metrics, "failures_total") >= 20)
    await until(lambda: bool(told(log, "spool.writes_again")))
    lines = told(log, "spool.failed", "spool.writes_again")
    assert [line["event"] for line in lines] == ["spool.failed", "spool.writes_again"]
    assert lines[1]["times"] >= 19
    await stage.services.spool.close()


async def test_a_fault_of_ours_in_the_spool_is_told_once(
    tmp_path: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = iter(range(50))

    async def faulty(self: Spool) -> None:
        for _ in faults:
            raise RuntimeError

    monkeypatch.setattr(Spool, "_drain_all", faulty)
    spool = Stage(spool=tmp_path / "spool").services.spool
    for _ in range(51):
        await spool._try()
    assert [line["event"] for line in told(log, "spool.fault", "spool.fault_over")] == [
        "spool.fault",
        "spool.fault_over",
    ]
