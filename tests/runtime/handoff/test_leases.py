"""Leases of one node: one write each, renewed in time, never believed in longer than they hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamsrv.runtime.handoff.leases import Leases
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.stores.builders import NOW_MS


class Clock:
    def __init__(self) -> None:
        self.s = 1_000.0

    def now(self) -> float:
        return self.s

    def utc_ms(self) -> int:
        return NOW_MS + int(self.s * 1000)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(SqliteSettings(data_dir=str(tmp_path / "data")))
    await store.open()
    yield store
    await store.close()


def leases(store: SqliteStore, clock: Clock, node: str) -> Leases:
    return Leases(store, "kafka", node=node, lease_s=30.0, now=clock.now, utc_ms=clock.utc_ms)


async def test_a_lease_is_asked_for_once_and_again_when_half_is_over(store: SqliteStore) -> None:
    clock = Clock()
    one, two = leases(store, clock, "n1"), leases(store, clock, "n2")
    assert await one.hold("talk")
    await store.release("kafka", "talk", node="n1")  # behind its back: what it does not ask for it does not notice
    clock.s += 14.9
    assert await one.hold("talk")
    assert await two.hold("talk")
    clock.s += 0.2
    assert not await one.hold("talk")
    assert await two.hold("talk")


async def test_a_renewed_lease_holds_from_then_on(store: SqliteStore) -> None:
    clock = Clock()
    one, two = leases(store, clock, "n1"), leases(store, clock, "n2")
    for _ in range(4):
        assert await one.hold("talk")
        clock.s += 16
        assert not await two.hold("talk")
    clock.s += 14.1
    assert await two.hold("talk")


async def test_expired_ones_are_forgotten_and_all_can_be_given_back(store: SqliteStore) -> None:
    clock = Clock()
    one, two = leases(store, clock, "n1"), leases(store, clock, "n2")
    for number in range(100):
        assert await one.hold(f"i{number}")
    clock.s += 20
    assert await one.hold("i7")
    clock.s += 11
    one.forget_expired()
    assert set(one._until) == {"i7"}
    assert not await two.hold("i7")
    await one.give_all_back()
    assert await two.hold("i7")
    await one.give_back("i7")
    assert not await one.hold("i7")
