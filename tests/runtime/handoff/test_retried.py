"""Dead letters that somebody made pending go out at once, whatever the relay is just doing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from streamsrv.runtime.handoff import patience
from streamsrv.runtime.settings import OutboxSettings
from streamsrv.sinks.base import Outcome, Record, failed
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.runtime.test_outbox import relaying, talk
from tests.support.sinks import ScriptedSink
from tests.support.watching import until

SETTINGS = OutboxSettings(poll_s=3_600, longest_pause_s=0.02, max_refusals=1, lease_s=1)
"""The next look into the store is an hour away."""


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteStore]:
    monkeypatch.setattr(patience, "FIRST_S", 0.01)
    store = SqliteStore(SqliteSettings(data_dir=str(tmp_path)))
    await store.open()
    yield store
    await store.close()


class Gate:
    """Holds up the first call that returns nothing, when it is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: SqliteStore, name: str) -> None:
        self._call = getattr(store, name)
        self.reached, self.opened = asyncio.Event(), asyncio.Event()
        monkeypatch.setattr(store, name, self)

    async def __call__(self, *words: Any, **more: Any) -> Any:
        found = await self._call(*words, **more)
        if not found:
            self.reached.set()
            await self.opened.wait()
        return found


def refusing(batch: Sequence[Record]) -> Outcome:
    return failed("refused", "status_422")


async def parked(store: SqliteStore) -> None:
    """One dead letter; whoever parked it has gone."""
    sink = ScriptedSink()
    sink.always = refusing
    async with relaying(store, sink, settings=SETTINGS):
        await talk(store, 1)
        await until(lambda: len(sink.batches) == 1)
        await asyncio.sleep(0.1)
    assert len(await store.dead_letters(limit=9)) == 1


@pytest.mark.parametrize("doing", ["handed", "due", "release"])
async def test_a_letter_that_is_retried_is_handed_on(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, doing: str
) -> None:
    """The turn of its interview is about to end, a look has just found nothing, or gives leases back after that."""
    await parked(store)
    gate = Gate(monkeypatch, store, doing)
    sink = ScriptedSink()
    async with relaying(store, sink, settings=SETTINGS) as outbox:
        if doing != "due":
            await talk(store, 1, stream="s2")
        if doing == "release":
            await until(lambda: len(sink.got) == 1)
            await asyncio.sleep(1.1 * SETTINGS.lease_s)
            assert await outbox.retry(sink="kafka", interview="nobody's") == 0
        async with asyncio.timeout(10.0):
            await gate.reached.wait()
        before = len(sink.got)
        assert await outbox.retry(sink="kafka", interview=None) == 1
        await asyncio.sleep(0.1)  # the look that this brings is over, if there is one
        gate.opened.set()
        await until(lambda: len(sink.got) == before + 1)
