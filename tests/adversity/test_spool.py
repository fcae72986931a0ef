"""The store is away while people speak (row 55), on real sockets and real processes: every shown word comes to stay."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from streamsrv.errors import StoreUnavailable
from streamsrv.events import Final
from streamsrv.runtime import keeper, spool
from streamsrv.runtime.settings import SessionSettings
from streamsrv.runtime.spooling import lines
from streamsrv.stores.base import StreamKey
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.adversity.arena import UTTERANCE, Arena, Talker, arena, eventually
from tests.runtime.test_spool import spooled
from tests.stores.builders import NOW_MS, begin, final, token
from tests.support.processes import Served
from tests.support.speech import silence

LASTING = SessionSettings(resume_window_s=30.0)
QUICK = {"STREAMSRV_STORE_BUSY_TIMEOUT_S": "0.02"}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "PAUSES_S", (0.02,))
    monkeypatch.setattr(spool, "PAUSE_S", 0.02)


@contextmanager
def locked(store: SqliteStore) -> Iterator[None]:
    """Another program holds the database: it can be read, and nothing can be written."""
    other = sqlite3.connect(store.path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
    finally:
        other.close()


@pytest.fixture
async def away(tmp_path: Path) -> AsyncIterator[tuple[Arena, SqliteStore]]:
    store = SqliteStore(SqliteSettings(data_dir=str(tmp_path), busy_timeout_s=0.01))
    async with arena(tmp_path, store=store, session=LASTING, bystander=False) as ring:
        yield ring, store


def durable(talker: Talker) -> list[tuple[int, str]]:
    return [(final["segment"], final["durable"]) for final in talker.all("final")]


async def test_row_55_finals_go_on_and_ack_stands_still(away: tuple[Arena, SqliteStore], tmp_path: Path) -> None:
    ring, store = away
    talker = await ring.join("raw")
    await talker.utter()
    with locked(store):
        for _ in range(3):
            await talker.utter()
        degraded = talker.all("degraded")
        assert [(one["reason"], one["active"]) for one in degraded] == [("store", True)]
        assert await ring.finals() == ["w0 w1 w2"]
        acks = [ack["samples"] for ack in talker.all("ack")]
        assert all(samples <= 32_000 for samples in acks), "nothing behind the stored final is acknowledged"
    await talker.until("degraded", active=False)
    assert await talker.finish() == 1000
    assert durable(talker) == [(0, "store"), (1, "spool"), (2, "spool"), (3, "spool")]
    assert [kept.final.segment for kept in await store.finals("raw")] == [0, 1, 2, 3]
    folder = tmp_path / "spool"
    await eventually(lambda: not list(folder.iterdir()), lambda: list(folder.iterdir()))


async def test_a_resume_on_the_same_node_finds_every_shown_word(away: tuple[Arena, SqliteStore]) -> None:
    ring, store = away
    talker = await ring.join("raw")
    token = talker.seen[0]["resume_token"]
    with locked(store):
        await talker.utter()
        await talker.utter()
        talker.ws._response.close()
        refused = (await ring.get(f"/transcription/stream/raw?resume={token}", headers=UPGRADE)).status
        assert refused == 503, "nobody may take it over before its words are stored"
    again = await ring.join("raw", f"resume={token}")
    ready = again.seen[0]
    assert [final["segment"] for final in ready["finals"]] == [0, 1]
    await again.send((UTTERANCE * 3)[ready["resume_at"] * 2 :])
    assert await again.finish() == 1000
    assert [kept.final.segment for kept in await store.finals("raw")] == [0, 1, 2]
    assert len({kept.epoch for kept in await store.finals("raw")}) == 2


UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


async def test_a_viewer_that_comes_while_words_are_spooled_gets_them_all_once(
    away: tuple[Arena, SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading works, writing does not: the viewer must not take the store's word for all there is."""
    ring, store = away
    talker = await ring.join("raw")
    await talker.utter()
    with locked(store):
        await talker.utter()
        viewer = Talker(await ring.http.ws_connect(ring.server.stream("raw", "role=viewer")))
        await viewer.until("ready")
        await viewer.until("final", segment=0)
        await talker.utter()
    for segment in (1, 2):
        await viewer.until("final", segment=segment)
    await talker.utter()
    await viewer.until("final", segment=3)
    assert [final["segment"] for final in viewer.all("final")] == [0, 1, 2, 3]
    await viewer.ws.close()
    assert await talker.finish() == 1000


async def test_a_deleted_interview_leaves_nothing_in_the_spool(
    away: tuple[Arena, SqliteStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamsrv.runtime.streams.STOP_WITHIN_S", 0.2)
    ring, store = away
    talker = await ring.join("raw")
    await talker.utter()
    with locked(store):
        await talker.utter()
        ending = asyncio.create_task(talker.end())
        answer = await ring.get("/transcription/raw", method="DELETE")
        assert answer.status == 503, "it is not all gone"
        assert await ending == 1008
        assert list((tmp_path / "spool").iterdir()) == [], "but nothing lies about"
    assert (await ring.get("/transcription/raw", method="DELETE")).status == 204
    assert await ring.finals() == []


# --- what a process before left, while the store takes nothing yet ----------------------------------------------------


class Reading(SqliteStore):
    """A store that can be read; it takes finals once ``away`` is false."""

    away = True

    async def keep_final(self, key: StreamKey, final: Final) -> bool:
        if self.away:
            raise StoreUnavailable("away")
        return await super().keep_final(key, final)


async def left_behind(folder: Path) -> Reading:
    """The data of a process that died while its store was away, having shown one final."""
    settings = SqliteSettings(data_dir=str(folder))
    before = SqliteStore(settings)
    await before.open()
    _, key = await begin(before, "raw", "st-1")
    await before.close()
    await spooled(folder / "spool", before, lines.Entry(key=key, at_ms=NOW_MS, final=final(0, text="shown")))
    return Reading(settings)


async def test_a_resume_finds_what_the_process_before_had_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "PAUSE_S", 1_000.0)  # the resume itself must bring it into the store
    store = await left_behind(tmp_path)
    async with arena(tmp_path, store=store, session=LASTING, bystander=False) as ring:
        secret = "A" * 32
        monkeypatch.setattr("streamsrv.runtime.streams._hash", lambda given: token("st-1"))
        path = f"/transcription/stream/raw?resume=st-1.{secret}"
        assert (await ring.get(path, headers=UPGRADE)).status == 503
        store.away = False
        again = await ring.join("raw", f"resume=st-1.{secret}")
        assert [one["text"] for one in again.seen[0]["finals"]] == ["shown"]
        assert again.seen[0]["channels"][0]["next_segment"] == 1
        assert await again.finish() == 1000


async def test_a_stream_nobody_comes_back_to_is_ended_behind_its_shown_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "PAUSE_S", 1_000.0)
    store = await left_behind(tmp_path)
    async with arena(tmp_path, store=store, bystander=False) as ring:
        await asyncio.sleep(0.5)  # the resume window is over
        assert [one.status for one in await store.streams("raw")] == ["live"], "its words are not stored"
        store.away = False
        await ring.ended()
        assert await ring.finals() == ["shown"]


# --- processes ------------------------------------------------------------------------------------------------------


async def speak(served: Served, http: aiohttp.ClientSession, interview: str = "raw") -> Talker:
    talker = Talker(await http.ws_connect(f"{served.ws}/transcription/stream/{interview}"))
    await talker.until("ready")
    return talker


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_process_that_dies_while_its_store_is_away_loses_no_shown_word(
    tmp_path: Path, how: signal.Signals
) -> None:
    served = Served(tmp_path, QUICK)
    await served.start()
    try:
        async with aiohttp.ClientSession() as http:
            talker = await speak(served, http)
            with served.locked():
                await talker.utter()
                await talker.utter()
                await talker.begin_to_speak()
                served.signal(how)
                if how is signal.SIGTERM:
                    assert await talker.end() == 1012
                    assert durable(talker) == [(0, "spool"), (1, "spool"), (2, "spool")]
                assert await served.end() == (0 if how is signal.SIGTERM else -how)
                shown = [(final["segment"], final["text"]) for final in talker.all("final")]
                assert await served.finals("raw") == ()
            await served.start()
            stored = [(kept.final.segment, kept.final.text) for kept in await served.finals("raw")]
            assert stored == shown, "stored before the server serves"
            assert "spool.drained" in served.events()
            assert "spool.damaged" not in served.events()
            token = talker.seen[0]["resume_token"]
            async with http.ws_connect(f"{served.ws}/transcription/stream/raw?resume={token}") as ws:
                ready = json.loads((await ws.receive()).data)
                assert [(final["segment"], final["text"]) for final in ready["finals"]] == shown
        served.signal(signal.SIGTERM)
        assert await served.end() == 0
    finally:
        await served.kill()


@pytest.mark.slow
async def test_a_stream_that_ended_while_the_store_was_away_is_ended_by_the_next_process(tmp_path: Path) -> None:
    served = Served(tmp_path, {**QUICK, "STREAMSRV_SERVER_DRAIN_S": "1"})
    await served.start()
    try:
        async with aiohttp.ClientSession() as http:
            talker = await speak(served, http)
            with served.locked():
                await talker.send(UTTERANCE + silence(0.5))
                await talker.tell("finish")
                await talker.until("final")
                served.signal(signal.SIGTERM)
                assert await talker.end() == 1012, "told to go elsewhere, where it hears how it ended"
                assert await served.end(6) == 0
        await served.start()
        (stream,) = await served.streams("raw")
        assert stream.status == "ended"
        assert stream.silence_ms != ()
        assert len(await served.finals("raw")) == 1
    finally:
        await served.kill()
