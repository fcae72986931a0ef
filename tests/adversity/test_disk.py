"""A full disk, and a store that is away (rows 55 and 63), without a spool: order kept, nothing acknowledged is lost,
work resumes.  ``test_spool`` has the same with one."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from streamsrv.runtime import keeper
from streamsrv.runtime.settings import SpoolSettings
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.adversity.arena import UTTERANCE, Arena, Talker, arena
from tests.support.memory import MemoryStore
from tests.support.speech import silence, voice

TALK = voice(1.2) + silence(2.4)
"""An utterance, and silence enough for a restart point."""
NO_SPOOL = SpoolSettings(max_mb=0)
UTTERANCES = 40
"""Enough of them to fill what is left in the pages of a full database."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper tries again soon."""
    monkeypatch.setattr(keeper, "PAUSES_S", (0.02,))


def full(connection: sqlite3.Connection) -> None:
    """The database may not grow by a page: SQLite then says SQLITE_FULL, as on a full disk."""
    connection.execute("PRAGMA max_page_count = 1")  # the smallest it takes is what it has


def roomy(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA max_page_count = 1073741823")


@asynccontextmanager
async def small(folder: Path) -> AsyncIterator[tuple[Arena, SqliteStore]]:
    store = SqliteStore(SqliteSettings(data_dir=str(folder)))
    async with arena(folder, store=store, spool=NO_SPOOL) as ring:
        yield ring, store


async def talk_until(talker: Talker, reason: str, most: int) -> int:
    """Utter until the server is degraded for this reason; how many utterances that took."""
    for number in range(1, most + 1):
        await talker.send(TALK)
        await talker.tell("flush")
        while (event := await talker.next()) is not None:
            if event["type"] == "degraded" and event["reason"] == reason:
                return number
            if event["type"] == "ack" and event["flushed"]:
                break
    raise AssertionError(f"{most} utterances and no trouble")


def numbers(talker: Talker) -> list[int]:
    return [final["segment"] for final in talker.all("final")]


async def test_row_63_a_full_disk_holds_finals_back_and_loses_none(tmp_path: Path) -> None:
    async with small(tmp_path) as (ring, store):
        talker = await ring.join("raw")
        (driver,) = [one for one in ring.server.streams._drivers.values() if one.key.interview == "raw"]
        # Audio comes many times faster than it is spoken here, so acks are not held to one a second either.
        progress = driver.machine._progress
        progress._settings = msgspec.structs.replace(progress._settings, ack_every_s=0.0)
        await talker.send(TALK)
        await talker.until("final")
        await store._writer.submit(full)
        uttered = 1 + await talk_until(talker, "store", UTTERANCES)

        shown = len(talker.all("final"))
        acked = max(ack["samples"] for ack in talker.all("ack"))
        assert acked > 0
        assert shown < uttered, "a final is shown when it is stored, not before"
        seen = len(talker.seen)
        for _ in range(3):
            await talker.send(TALK)
            uttered += 1
        await talker.tell("keepalive")
        while [event["type"] for event in talker.seen[seen:]].count("speech_stopped") < 3:
            await talker.next()
        while_full = talker.seen[seen:]
        assert [event for event in while_full if event["type"] == "final"] == []
        assert {ack["samples"] for ack in while_full if ack["type"] == "ack"} <= {acked}, "ack stands still"
        assert numbers(talker) == list(range(len(await ring.finals()))), "what was shown is stored"
        assert (await ring.get("/transcription/raw")).status == 200, "reading goes on"

        await store._writer.submit(roomy)
        await talker.until("degraded", reason="store", active=False)
        assert await talker.finish() == 1000
        assert numbers(talker) == list(range(uttered)), "in order, each once"
        stored = [kept.final.segment for kept in await store.finals("raw")]
        assert stored == list(range(uttered))
        assert max(ack["samples"] for ack in talker.all("ack")) > acked
        assert all("words" not in line for line in ring.log())


async def test_row_63_newcomers_are_refused_while_nothing_can_be_recorded(tmp_path: Path) -> None:
    async with small(tmp_path) as (ring, store):
        await store._writer.submit(full)
        statuses = [
            (await ring.get(f"/transcription/stream/{'i' * 120}{number}", headers=UPGRADE)).status
            for number in range(60)
        ]
        assert statuses[-1] == 503
        assert statuses == sorted(statuses), "refused from the moment the disk is full, not now and then"
        assert (await ring.get("/health")).status == 200
        await store._writer.submit(roomy)
        assert (await ring.get("/transcription/stream/raw", headers=UPGRADE)).status == 101


UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


async def test_row_55_a_store_that_is_away_is_waited_for(tmp_path: Path) -> None:
    store = MemoryStore()
    async with arena(tmp_path, store=store, spool=NO_SPOOL) as ring:
        talker = await ring.join("raw")
        await talker.utter()
        store.away = True
        await talker.send(UTTERANCE * 3)
        degraded = await talker.until("degraded")
        assert (degraded["reason"], degraded["active"]) == ("store", True)
        store.away = False
        await talker.until("degraded", active=False)
        assert await talker.finish() == 1000
        assert numbers(talker) == [0, 1, 2, 3]
        assert [kept.final.segment for kept in store.kept if kept.epoch == 1 and kept.final.segment] == [1, 2, 3]


async def test_a_stream_that_ends_while_the_store_is_away_ends_when_it_is_back(tmp_path: Path) -> None:
    store = MemoryStore()
    async with arena(tmp_path, store=store, spool=NO_SPOOL, bystander=False) as ring:
        talker = await ring.join("raw")
        store.away = True
        await talker.send(UTTERANCE)
        await talker.tell("finish")
        await talker.until("degraded", active=True)
        assert talker.all("final") == []
        store.away = False
        assert await talker.end() == 1000
        assert numbers(talker) == [0]
        assert (await store.streams("raw"))[0].status == "ended"
