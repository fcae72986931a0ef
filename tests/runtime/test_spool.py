"""The spool: shown words are on this disk before they are shown, and in the store as soon as it is there."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from streamsrv import commands, events, telemetry
from streamsrv.errors import StoreUnavailable
from streamsrv.facts import Receipt
from streamsrv.runtime import keeper, spool
from streamsrv.runtime.settings import SpoolSettings
from streamsrv.runtime.spool import Spool
from streamsrv.runtime.spooling import lines
from streamsrv.runtime.spooling.page import Page
from streamsrv.session.effects import Keep, Note
from streamsrv.session.states import State
from streamsrv.stores.base import Anchor, StreamKey, StreamStats
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.runtime.stage import Stage
from tests.stores.builders import NOW_MS, begin, final, texts, token
from tests.support.speech import silence, voice

TALK = voice(1.0) + silence(1.2)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "PAUSES_S", (0.01,))
    monkeypatch.setattr(spool, "PAUSE_S", 0.01)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 -- looks at what tells nobody when it changes
            await asyncio.sleep(0.002)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def number(metrics: telemetry.Metrics, name: str, **labels: str) -> float:
    return float(metrics.registry.get_sample_value(f"streamsrv_spool_{name}", labels) or 0.0)


# --- a session while its store is away ------------------------------------------------------------------------------


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(spool=tmp_path / "spool")
    await stage.services.spool.start()
    await stage.begin()
    yield stage
    await stage.services.spool.close()


def finals(stage: Stage) -> list[tuple[int, str]]:
    return [(shown.segment, shown.durable) for shown in stage.peer.finals]


def acked(stage: Stage) -> int:
    return max((event.position for event in stage.peer.heard if isinstance(event, events.Ack)), default=0)


async def test_finals_are_shown_from_the_spool_and_stored_when_the_store_is_back(stage: Stage, tmp_path: Path) -> None:
    await stage.send(silence(1.5) + TALK)
    before = acked(stage)
    assert before > 0
    stage.services.store.away = True
    await stage.send(TALK + TALK)
    await until(lambda: len(stage.peer.finals) == 3)
    assert finals(stage) == [(0, "store"), (1, "spool"), (2, "spool")]
    await stage.send(silence(3.0))
    assert acked(stage) == before, "an ack waits for the store"
    (name,) = files(tmp_path / "spool")
    assert stat.S_IMODE((tmp_path / "spool" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700
    metrics = stage.services.metrics
    assert number(metrics, "finals") == 2
    assert number(metrics, "bytes") >= (tmp_path / "spool" / name).stat().st_size
    stage.services.store.away = False
    await until(lambda: not files(tmp_path / "spool"))
    await stage.send(silence(1.5))
    assert [kept.final.segment for kept in stage.services.store.kept] == [0, 1, 2]
    assert acked(stage) > before
    assert len(stage.peer.finals) == 3, "each is shown once"
    await until(lambda: number(metrics, "bytes") == 0)
    assert number(metrics, "finals") == 0


async def test_what_is_spooled_leaves_the_ring(stage: Stage) -> None:
    """Speech of any length goes on while the store is away: only the spool bounds it."""
    stage.services.store.away = True
    for _ in range(40):  # 88 s: more than the ring holds
        await stage.send(TALK, step_s=0.5)
        await asyncio.sleep(0.002)
    await until(lambda: len(stage.peer.finals) == 40)
    assert not any(isinstance(event, events.Degraded) and event.reason == "buffer" for event in stage.peer.heard)
    stage.services.store.away = False
    await until(lambda: len(stage.services.store.kept) == 40)


async def test_a_store_that_does_not_answer_is_away(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "PATIENCE_S", 0.01)
    answering, keep = asyncio.Event(), stage.services.store.keep_final

    async def slowly(key: StreamKey, one: events.Final) -> bool:
        await answering.wait()
        return await keep(key, one)

    monkeypatch.setattr(stage.services.store, "keep_final", slowly)
    await stage.send(silence(0.3) + TALK)
    await until(lambda: finals(stage) == [(0, "spool")])
    answering.set()
    await until(lambda: len(stage.services.store.kept) == 1)
    troubles = [(e.reason, e.active) for e in stage.peer.heard if isinstance(e, events.Degraded)]
    assert troubles == [("store", True), ("store", False)]


async def test_the_end_waits_for_the_store(stage: Stage, tmp_path: Path) -> None:
    stage.services.store.away = True
    await stage.send(silence(0.3) + TALK)
    await stage.order(commands.Finish())
    await until(lambda: finals(stage) == [(0, "spool")])
    await stage.rest()
    assert stage.peer.closed is None
    stage.services.store.away = False
    await until(lambda: stage.peer.closed is not None)
    assert stage.peer.closed == (1000, "")
    assert stage.services.store.records["s"].status == "ended"
    await until(lambda: not files(tmp_path / "spool"))


@pytest.mark.parametrize("how", ["full", "broken"])
async def test_when_the_spool_takes_no_more_finals_wait_and_the_session_is_told(
    stage: Stage, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "full":
        monkeypatch.setattr(stage.services.spool, "_most_bytes", 100)
    else:
        monkeypatch.setattr(os, "fsync", _fail)
    stage.services.store.away = True
    await stage.send(silence(0.3) + TALK)
    await until(lambda: any(isinstance(event, events.Warned) for event in stage.peer.heard))
    await stage.send(TALK)
    assert stage.peer.finals == []
    assert [e.code for e in stage.peer.heard if isinstance(e, events.Warned)] == ["spool_full"]
    monkeypatch.undo()
    await until(lambda: finals(stage) == [(0, "spool"), (1, "spool")])
    stage.services.store.away = False
    await until(lambda: len(stage.services.store.kept) == 2)
    assert number(stage.services.metrics, "failures_total") == (0 if how == "full" else pytest.approx(2, abs=1e3))


def _fail(fd: int) -> None:
    raise OSError(28, "no space")


def lines_of(folder: Path) -> lines.Read:
    (path,) = folder.iterdir()
    return lines.read(path.read_bytes())


async def test_a_final_is_synced_before_it_is_shown(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[bool, int]] = []
    fsync = os.fsync

    def look(fd: int) -> None:
        fsync(fd)
        synced.append((stat.S_ISREG(os.fstat(fd).st_mode), len(stage.peer.finals)))

    monkeypatch.setattr(os, "fsync", look)
    stage.services.store.away = True
    await stage.send(silence(0.3) + TALK)
    await until(lambda: len(stage.peer.finals) == 1)
    assert synced[:2] == [(True, 0), (False, 0)], "the file, then its name in the folder"
    assert [entry.final is not None for entry in lines_of(tmp_path / "spool").sound] == [True]


async def test_what_waits_together_is_spooled_once(stage: Stage, tmp_path: Path) -> None:
    """Finals that wait when the spool gets room again go in one batch; receipts bring further jobs meanwhile."""
    stage.services.spool.active = False
    stage.services.store.away = True
    await stage.send(silence(1.5) + TALK + silence(1.0) + TALK + silence(2.0))
    await asyncio.sleep(0.05)
    assert stage.peer.finals == []
    stage.services.spool.active = True
    await until(lambda: finals(stage) == [(0, "spool"), (1, "spool")])
    await stage.send(silence(2.0) + TALK)
    await until(lambda: len(stage.peer.finals) == 3)
    read = lines_of(tmp_path / "spool")
    assert read.whole
    assert [entry.final.segment for entry in read.sound if entry.final] == [0, 1, 2]
    assert [len(entry.anchors) for entry in read.sound if entry.anchors] == [1]


async def test_a_receipt_that_brings_a_job_doubles_nothing(stage: Stage, tmp_path: Path) -> None:
    receipts: list[Receipt] = []

    def stored(receipt: Receipt) -> None:
        receipts.append(receipt)
        if len(receipts) == 1:
            ours.put(Note(restarts=(1_920,)))

    stage.services.store.away = True
    ours = keeper.Keeper(
        stage.services,
        stage.driver.key,
        restarts=(0,),
        spools=True,
        stored=stored,
        troubled=lambda away: None,
        warn=lambda code, message: None,
        gone=lambda deleted: None,
        stats=StreamStats,
    )
    for segment in range(3):
        ours.put(Keep(final=final(segment)))
    await until(lambda: len(receipts) == 3)
    await until(lambda: len(lines_of(tmp_path / "spool").sound) >= 4)
    await asyncio.sleep(0.05)
    kinds = [entry.final.segment if entry.final else entry.restarts for entry in lines_of(tmp_path / "spool").sound]
    assert kinds == [0, 1, 2, (1_920,)]
    ours.close()


async def test_a_batch_that_fails_leaves_nothing_in_the_file(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.services.store.away = True
    await stage.send(silence(0.3) + TALK)
    await until(lambda: len(stage.peer.finals) == 1)
    monkeypatch.setattr(os, "fsync", _fail)  # written, but not durable
    await stage.send(TALK)
    await until(lambda: any(isinstance(event, events.Warned) for event in stage.peer.heard))
    monkeypatch.undo()
    monkeypatch.setattr(keeper, "PAUSES_S", (0.01,))
    await until(lambda: finals(stage) == [(0, "spool"), (1, "spool")])
    read = lines_of(tmp_path / "spool")
    assert read.whole
    assert [entry.final.segment for entry in read.sound if entry.final] == [0, 1]


async def test_a_first_batch_that_fails_leaves_no_file(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.services.store.away = True
    monkeypatch.setattr(os, "fsync", _fail)
    await stage.send(silence(0.3) + TALK)
    await until(lambda: any(isinstance(event, events.Warned) for event in stage.peer.heard))
    assert not files(tmp_path / "spool")
    monkeypatch.undo()
    monkeypatch.setattr(keeper, "PAUSES_S", (0.01,))
    await until(lambda: finals(stage) == [(0, "spool")])
    assert [entry.final.segment for entry in lines_of(tmp_path / "spool").sound if entry.final] == [0]


async def test_a_drained_session_leaves_its_words_to_the_spool(stage: Stage, tmp_path: Path) -> None:
    stage.services.store.away = True
    await stage.send(silence(1.5) + TALK + TALK)
    await stage.order(commands.Drain(within_s=5))
    await until(lambda: stage.peer.closed is not None)
    assert stage.peer.closed == (1012, "draining")
    assert finals(stage) == [(0, "spool"), (1, "spool")]
    stage.services.store.away = False
    await until(lambda: len(stage.services.store.kept) == 2)
    await until(lambda: not files(tmp_path / "spool"))
    assert stage.services.store.records["s"].status == "live"


async def test_what_a_newer_epoch_replaced_is_refused_and_counted(stage: Stage, tmp_path: Path) -> None:
    stage.services.store.away = True
    await stage.send(silence(0.3) + TALK)
    await until(lambda: finals(stage) == [(0, "spool")])
    old = stage.driver
    stage.services.store.away = False
    await stage.services.store.resume_stream("s", stage.token, now_ms=0)  # by another node, which has no such spool
    await until(lambda: old.machine.state is State.GONE)
    await until(lambda: not files(tmp_path / "spool"))
    assert stage.services.store.kept == []
    assert number(stage.services.metrics, "drained_total", outcome="refused") == 1


async def test_catching_up_waits_for_what_was_shown(stage: Stage) -> None:
    stage.services.store.away = True
    await stage.send(silence(0.3) + TALK)
    await until(lambda: len(stage.peer.finals) == 1)
    with pytest.raises(StoreUnavailable, match="still wait"):
        await stage.driver.keeper.caught_up(0.05)
    stage.services.store.away = False
    await stage.driver.keeper.caught_up(5.0)
    assert len(stage.services.store.kept) == 1


# --- what is left behind --------------------------------------------------------------------------------------------


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(SqliteSettings(data_dir=str(tmp_path)))
    await store.open()
    yield store
    await store.close()


class Away(SqliteStore):
    """A store that can be asked nothing while it is away."""

    away = True

    async def streams(self, interview: str):  # type: ignore[no-untyped-def]
        if self.away:
            raise StoreUnavailable("away")
        return await super().streams(interview)


async def spooled(folder: Path, store: SqliteStore, *entries: lines.Entry, serial: int = 0) -> Path:
    """A file as a process leaves it that dies behind the last entry."""
    desk = Spool(folder, SpoolSettings(), store, telemetry.Metrics("test"))
    desk.active, desk._loop = True, asyncio.get_running_loop()
    await asyncio.to_thread(folder.mkdir, mode=0o700, exist_ok=True)
    page: Page = desk.page(entries[0].key, serial)
    durable: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    assert page.append([lines.encode(entry) for entry in entries], len(entries), durable.set_result)
    assert await durable
    desk._threads.shutdown()
    return page.path


def entry(key: StreamKey, segment: int, **more: object) -> lines.Entry:
    return lines.Entry(key=key, at_ms=NOW_MS, final=final(segment), **more)  # type: ignore[arg-type]


async def started(folder: Path, store: SqliteStore) -> tuple[Spool, telemetry.Metrics]:
    metrics = telemetry.Metrics("test")
    found = Spool(folder, SpoolSettings(), store, metrics)
    await found.start()
    return found, metrics


async def test_a_start_writes_what_a_crash_left(tmp_path: Path, store: SqliteStore) -> None:
    _, key = await begin(store)
    assert await store.keep_final(key, final(0))
    anchor = Anchor(position=0, utc_ms=NOW_MS)
    end = lines.End.of(StreamStats(silence_ms=(5,), loudest_discarded_dbfs=(-50.0,)), NOW_MS + 9)
    folder = tmp_path / "spool"
    await spooled(
        folder,
        store,
        entry(key, 0, anchors=(anchor,)),
        entry(key, 1),
        lines.Entry(key=key, at_ms=NOW_MS, restarts=(1_920,)),
        lines.Entry(key=key, at_ms=NOW_MS, end=end),
    )
    found, metrics = await started(folder, store)
    assert await texts(store) == ["segment 0", "segment 1"]
    (stream,) = await store.streams("talk")
    assert (stream.status, stream.anchors, stream.restarts) == ("ended", (anchor,), (1_920,))
    assert (stream.ended_ms, stream.silence_ms) == (NOW_MS + 9, (5,))
    assert files(folder) == []
    assert number(metrics, "drained_total", outcome="stored") == 2
    await found.close()


async def test_restart_points_never_go_back(tmp_path: Path, store: SqliteStore) -> None:
    """The session went on after the store was back, and died before it deleted its file."""
    _, key = await begin(store)
    await spooled(tmp_path / "spool", store, entry(key, 0), lines.Entry(key=key, at_ms=NOW_MS, restarts=(1_920,)))
    assert await store.keep_final(key, final(0))
    assert await store.keep_progress(key, (96_000,), ())
    found, _ = await started(tmp_path / "spool", store)
    assert (await store.streams("talk"))[0].restarts == (96_000,)
    await found.close()


async def test_files_of_one_stream_are_written_in_their_order(tmp_path: Path, store: SqliteStore) -> None:
    _, key = await begin(store)
    for serial in reversed(range(12)):
        await spooled(tmp_path / "spool", store, entry(key, serial), serial=serial)
    found, _ = await started(tmp_path / "spool", store)
    assert [kept.place for kept in await store.finals_since("talk", 0, limit=50)] == list(range(1, 13))
    assert await texts(store) == [f"segment {number}" for number in range(12)]
    await found.close()


async def test_a_resume_elsewhere_came_first(tmp_path: Path, store: SqliteStore) -> None:
    _, key = await begin(store)
    await store.keep_final(key, final(0))
    await spooled(tmp_path / "spool", store, entry(key, 0), entry(key, 1))
    resumed = await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)
    await store.keep_final(resumed.key, final(1, text="heard again"))
    found, metrics = await started(tmp_path / "spool", store)
    assert await texts(store) == ["segment 0", "heard again"]
    assert number(metrics, "drained_total", outcome="refused") == 1
    assert files(tmp_path / "spool") == []
    await found.close()


async def test_a_store_that_is_away_at_the_start_is_waited_for(tmp_path: Path) -> None:
    store = Away(SqliteSettings(data_dir=str(tmp_path)))
    await store.open()
    _, key = await begin(store)
    await spooled(tmp_path / "spool", store, entry(key, 0))
    found, metrics = await started(tmp_path / "spool", store)
    assert found.unstored("talk")
    assert number(metrics, "finals") == 1
    assert number(metrics, "oldest_seconds") > 0
    with pytest.raises(StoreUnavailable):
        await found.settle("s1")
    store.away = False
    await found.settle("s1")
    assert await texts(store) == ["segment 0"]
    assert not found.unstored("talk")
    await found.close()
    await store.close()


@pytest.mark.parametrize(
    ("damage", "kept", "ended"),
    [
        (lambda data: data[:-5], ["segment 0", "segment 1", "segment 2"], False),
        (lambda data: data.replace(b"segment 1", b"segment X"), ["segment 0", "segment 2"], False),
        (lambda data: b"\0" * len(data), [], False),
        (lambda data: data, ["segment 0", "segment 1", "segment 2"], True),
    ],
    ids=["torn", "changed", "zeros", "sound"],
)
async def test_damage_is_told_and_set_aside(
    tmp_path: Path, store: SqliteStore, damage: Callable[[bytes], bytes], kept: list[str], ended: bool
) -> None:
    _, key = await begin(store)
    folder = tmp_path / "spool"
    end = lines.Entry(key=key, at_ms=NOW_MS, end=lines.End(now_ms=NOW_MS))
    path = await spooled(folder, store, *(entry(key, segment) for segment in range(3)), end)
    path.write_bytes(damage(path.read_bytes()))
    found, metrics = await started(folder, store)
    assert await texts(store) == kept
    assert ((await store.streams("talk"))[0].status == "ended") is ended
    assert files(folder) == ([] if ended else [path.name + ".aside"])
    assert number(metrics, "damaged_files") == (not ended)
    await found.close()
    again, metrics = await started(folder, store)
    assert number(metrics, "damaged_files") == (not ended), "also known to the next process"
    assert number(metrics, "bytes") == sum(one.stat().st_size for one in folder.iterdir())
    await again.forget("talk")
    assert files(folder) == []
    assert number(metrics, "bytes") == 0
    await again.close()


async def test_a_deleted_interview_takes_its_files_along(tmp_path: Path) -> None:
    store = Away(SqliteSettings(data_dir=str(tmp_path)))
    await store.open()
    _, key = await begin(store)
    _, other = await begin(store, "other", "s2")
    await spooled(tmp_path / "spool", store, entry(key, 0))
    kept = await spooled(tmp_path / "spool", store, entry(other, 0))
    found, metrics = await started(tmp_path / "spool", store)
    await found.forget("talk")
    assert files(tmp_path / "spool") == [kept.name]
    assert number(metrics, "bytes") == kept.stat().st_size
    store.away = False
    await until(lambda: not files(tmp_path / "spool"))
    assert await texts(store, "talk") == []
    assert await texts(store, "other") == ["segment 0"]
    await found.close()
    await store.close()


async def test_an_interview_deleted_elsewhere_ends_the_waiting(tmp_path: Path, store: SqliteStore) -> None:
    _, key = await begin(store)
    await spooled(tmp_path / "spool", store, entry(key, 0))
    await store.delete_interview("talk")
    found, metrics = await started(tmp_path / "spool", store)
    assert files(tmp_path / "spool") == []
    assert number(metrics, "drained_total", outcome="refused") == 1
    await found.close()


async def test_a_folder_that_cannot_be_used_stops_nothing(tmp_path: Path, store: SqliteStore) -> None:
    (tmp_path / "spool").write_text("a file")
    found, _ = await started(tmp_path / "spool", store)
    assert not found.active
    await found.settle("s1")
    await found.close()
