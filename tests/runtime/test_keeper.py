"""A final waits for nobody's company: what goes into the store before it is hurried."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from streamsrv import telemetry
from streamsrv.facts import FinalKept, ProgressKept, Receipt
from streamsrv.runtime.keeper import Keeper
from streamsrv.runtime.settings import SpoolSettings
from streamsrv.runtime.spool import Spool
from streamsrv.session.effects import Keep, Note
from streamsrv.stores.base import Anchor, StreamStats
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore, writer
from tests.stores.builders import NOW_MS, begin, final

GATHER_S = 60.0
"""Far longer than any of these tests may take."""
WITHIN_S = 10.0


class Means(NamedTuple):
    store: SqliteStore
    spool: Spool

    def utc_ms(self) -> int:
        return NOW_MS


class Receipts:
    """What the store has confirmed."""

    def __init__(self) -> None:
        self.seen: list[Receipt] = []
        self._came = asyncio.Event()

    def put(self, receipt: Receipt) -> None:
        self.seen.append(receipt)
        self._came.set()

    async def wait(self, count: int) -> list[Receipt]:
        async with asyncio.timeout(WITHIN_S):
            while len(self.seen) < count:
                self._came.clear()
                await self._came.wait()
        return self.seen


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Awaitable[None]]:
    """Wait until the writer has found nothing more to do: what comes a moment before goes along without company."""
    found_nothing = threading.Event()
    take = writer.Writer._take

    def noted(self: writer.Writer, limit: int) -> list[writer.Job[object]]:
        if not (group := take(self, limit)):
            found_nothing.set()
        return group

    async def idle() -> None:
        assert await asyncio.to_thread(found_nothing.wait, WITHIN_S)

    monkeypatch.setattr(writer.Writer, "_take", noted)
    return idle


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteStore]:
    monkeypatch.setattr(writer, "GATHER_S", GATHER_S)
    store = SqliteStore(SqliteSettings(data_dir=str(tmp_path / "data")))
    await store.open()
    yield store
    await store.close()


async def keeper_of(store: SqliteStore, tmp_path: Path) -> tuple[Keeper, Receipts]:
    _, key = await begin(store)
    spool = Spool(tmp_path / "spool", SpoolSettings(), store, telemetry.Metrics("test"))
    receipts = Receipts()
    keeper = Keeper(
        Means(store, spool),
        key,
        restarts=(0,),
        spools=False,
        stored=receipts.put,
        troubled=lambda away: None,
        warn=lambda code, message: None,
        gone=lambda deleted: None,
        stats=StreamStats,
    )
    return keeper, receipts


async def test_the_anchor_before_a_final_does_not_wait_for_company(store: SqliteStore, tmp_path: Path) -> None:
    keeper, receipts = await keeper_of(store, tmp_path)
    anchor = Anchor(position=0, utc_ms=NOW_MS)
    keeper.anchor(anchor)
    keeper.put(Keep(final=final(0)))
    assert await receipts.wait(1) == [FinalKept(channel=0, segment=0)]
    assert (await store.streams("talk"))[0].anchors == (anchor,)


async def test_restart_points_under_way_are_hurried_by_a_final(
    idle: Callable[[], Awaitable[None]], store: SqliteStore, tmp_path: Path
) -> None:
    keeper, receipts = await keeper_of(store, tmp_path)
    await idle()
    keeper.put(Note(restarts=(1_920,)))
    await asyncio.sleep(0.1)
    assert receipts.seen == []  # they wait: nobody needs them
    keeper.put(Keep(final=final(0)))
    assert await receipts.wait(2) == [ProgressKept(restarts=(1_920,)), FinalKept(channel=0, segment=0)]
