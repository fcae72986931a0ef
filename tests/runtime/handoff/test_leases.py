"""Leases of one node: one write each, renewed in time, never believed in longer than they hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamsrv.errors import StoreUnavailable
from streamsrv.runtime.handoff.leases import Leases
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.stores.builders import NOW_MS


class Clock:
    """A node's clocks; its UTC may be wrong."""

    def __init__(self, *, off_s: float = 0.0) -> None:
        self.s = 1_000.0
        self.off_s = off_s

    def now(self) -> float:
        return self.s

    def utc_ms(self) -> int:
        return NOW_MS + int((self.s + self.off_s) * 1000)


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
    clock.s += 29.9
    assert not await two.hold("talk")
    clock.s += 0.2
    assert await two.hold("talk")
    assert not await one.hold("talk")


@pytest.mark.parametrize("off_s", [-86_400.0, -40.0, 40.0, 86_400.0])
async def test_clocks_that_are_apart_make_no_two_holders(store: SqliteStore, off_s: float) -> None:
    here, there = Clock(), Clock(off_s=off_s)
    one, two = leases(store, here, "n1"), leases(store, there, "n2")
    for second in range(200):
        here.s = there.s = 1_000.0 + second
        assert await one.hold("talk")
        assert not await two.hold("talk")
    for _ in range(30):  # n1 died; its last renewal was seen at most half a lease ago
        assert there.s < 1_199.0 + 30
        there.s += 1
        if await two.hold("talk"):
            break
    assert await two.hold("talk")
    assert there.s > 1_199.0 + 15 - 2


async def test_a_clock_that_is_set_back_renews_all_the_same(store: SqliteStore) -> None:
    clock = Clock()
    one, two = leases(store, clock, "n1"), leases(store, clock, "n2")
    for _ in range(6):
        assert await one.hold("talk")
        assert not await two.hold("talk")
        clock.s += 16
        clock.off_s -= 16


async def test_who_looks_away_has_seen_nothing_stand_still(store: SqliteStore) -> None:
    clock = Clock()
    one, two = leases(store, clock, "n1"), leases(store, clock, "n2")
    assert await one.hold("talk")
    assert not await two.hold("talk")
    clock.s += 16
    assert await one.hold("talk")
    clock.s += 15  # n2 saw the first one 31 s ago, but that is not the one that stands there
    assert not await two.hold("talk")
    clock.s += 29
    assert not await two.hold("talk")


async def test_a_lease_given_back_and_taken_again_is_not_the_old_one(store: SqliteStore) -> None:
    clock = Clock()
    one, two = leases(store, clock, "n1"), leases(store, clock, "n2")
    assert await one.hold("talk")
    assert not await two.hold("talk")
    await one.give_back("talk")
    clock.s += 31
    assert await leases(store, clock, "n1").hold("talk")
    assert not await two.hold("talk")


async def test_expired_ones_are_given_back_and_so_are_all_at_the_end(store: SqliteStore) -> None:
    clock = Clock()
    one, two = leases(store, clock, "n1"), leases(store, clock, "n2")
    for number in range(100):
        assert await one.hold(f"i{number}")
    clock.s += 20
    assert await one.hold("i7")
    clock.s += 11
    await one.drop_expired()
    assert set(one._until) == {"i7"}
    assert await two.hold("i8")
    assert not await two.hold("i7")
    await one.give_all_back()
    assert await two.hold("i7")
    await one.give_back("i7")
    assert not await one.hold("i7")


async def test_what_is_being_given_back_is_not_held(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, began, gate, release = Clock(), asyncio.Event(), asyncio.Event(), store.release

    async def slowly(sink: str, interview: str, *, node: str) -> None:
        began.set()
        await gate.wait()
        await release(sink, interview, node=node)

    monkeypatch.setattr(store, "release", slowly)
    one = leases(store, clock, "n1")
    assert await one.hold("talk")
    clock.s += 31
    dropping = asyncio.create_task(one.drop_expired())
    await began.wait()
    assert not await one.hold("talk")
    gate.set()
    await dropping
    assert await one.hold("talk")


async def test_others_are_held_and_kept_while_some_are_given_back(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage many have expired; those whose turn has not come yet may be renewed instead."""
    clock, began, gate, release = Clock(), asyncio.Event(), asyncio.Event(), store.release

    async def slowly(sink: str, interview: str, *, node: str) -> None:
        began.set()
        await gate.wait()
        await release(sink, interview, node=node)

    one, two = leases(store, clock, "n1"), leases(store, clock, "n2")
    for number in range(100):
        assert await one.hold(f"i{number}")
    clock.s += 31
    monkeypatch.setattr(store, "release", slowly)
    dropping = asyncio.create_task(one.drop_expired())
    await began.wait()
    assert not await one.hold("i0")
    assert await one.hold("i99")
    gate.set()
    await dropping
    assert set(one._until) == {"i99"}
    assert await two.hold("i0")
    assert not await two.hold("i99")


async def test_leases_nobody_wants_any_more_are_not_watched(store: SqliteStore) -> None:
    clock = Clock()
    one, two = leases(store, clock, "n1"), leases(store, clock, "n2")
    assert await one.hold("talk")
    assert not await two.hold("talk")
    clock.s += 91
    await two.drop_expired()
    assert two._rivals == {}


@pytest.mark.parametrize("name", ["lease", "release"])
async def test_what_the_store_does_not_take_is_given_back_later(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A disk that is full for a moment: the lease in the store is ours still."""

    async def full(*_: object, **__: object) -> None:
        raise StoreUnavailable("full")

    clock = Clock()
    one, two = leases(store, clock, "n1"), leases(store, clock, "n2")
    assert await one.hold("talk")
    clock.s += 20
    with monkeypatch.context() as away:
        away.setattr(store, name, full)
        with pytest.raises(StoreUnavailable):
            await (one.hold("talk") if name == "lease" else one.give_back("talk"))
    assert not await two.hold("talk")
    await one.drop_expired()
    assert await two.hold("talk")
