"""What a server tells other nodes, and what it makes of what they say: each word is a hint, the store decides."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from streamsrv import events
from streamsrv.commands import Options
from streamsrv.runtime import neighbours
from streamsrv.settings import ServerSettings
from streamsrv.stores.base import Stream, StreamStats
from tests.stores.builders import begin, final
from tests.support.puppet import Puppet
from tests.support.server import Running, running
from tests.support.watching import End, cut_line, finals_of, peer, stored, until, viewer


@asynccontextmanager
async def node(folder: Path, *, server: ServerSettings | None = None) -> AsyncIterator[tuple[Running, Puppet]]:
    puppet = Puppet()
    async with running(folder, server=server, shared=lambda numbers: puppet) as one:
        yield one, puppet
    assert puppet.closed


def stream_of(end: End) -> str:
    return str(end.events[0]["stream"])


async def taken_elsewhere(server: Running, speaker: End) -> None:
    """Another node resumes his stream, and says nothing of it."""
    token = hashlib.sha256(speaker.events[0]["resume_token"].encode()).digest()
    await server.store.resume_stream(stream_of(speaker), token, now_ms=1)


# --- what it tells -----------------------------------------------------------------------------------------------


async def test_others_are_told_what_viewers_may_know(tmp_path: Path) -> None:
    async with node(tmp_path) as (server, puppet):
        async with peer(server, query="speaker=Ada") as speaker:
            stream = stream_of(speaker)
            assert puppet.claims == {stream: 1}
            await speaker.say()
            await speaker.finish()
        await until(lambda: puppet.claims == {})
    kinds = [type(event) for interview, of, event in puppet.told if (interview, of) == ("talk", stream)]
    assert len(kinds) == len(puppet.told)
    assert (kinds[0], kinds[-1]) == (events.Ready, events.StreamOver)
    assert events.Final in kinds
    assert not {events.Ack, events.Closed, events.Warned} & set(kinds)


async def test_it_asks_for_the_interviews_that_are_watched(tmp_path: Path) -> None:
    async with node(tmp_path) as (server, puppet):
        async with viewer(server, "one"), viewer(server, "two"):
            async with viewer(server, "one"):
                assert puppet.watched == {"one", "two"}
            assert puppet.watched == {"one", "two"}
        await until(lambda: puppet.watched == set())


async def test_a_deletion_is_told(tmp_path: Path) -> None:
    async with node(tmp_path) as (server, puppet), aiohttp.ClientSession() as http:
        async with peer(server) as speaker:
            await speaker.say()
            async with http.delete(server.http + "/transcription/talk") as answer:
                assert answer.status == 204
        async with http.delete(server.http + "/transcription/nothing") as answer:
            assert answer.status == 404
        assert puppet.deleted == ["talk"]


@pytest.mark.parametrize(("condition", "status"), [("ok", "ok"), ("degraded", "degraded")])
async def test_health_says_how_others_are_reached(tmp_path: Path, condition: str, status: str) -> None:
    async with node(tmp_path) as (server, puppet), aiohttp.ClientSession() as http:
        puppet.condition = "degraded" if condition == "degraded" else "ok"
        async with http.get(server.http + "/health") as answer:
            body = json.loads(await answer.text())
        assert (body["shared_state"], body["status"]) == (condition, status)
        async with http.get(server.http + "/health/ready") as answer:
            assert answer.status == 200  # sessions are served as ever


# --- what it is told ---------------------------------------------------------------------------------------------


async def test_what_happens_elsewhere_reaches_viewers_here(tmp_path: Path) -> None:
    async with node(tmp_path) as (server, puppet), viewer(server) as watch:
        _, key = await begin(server.store, stream="far")
        puppet.notices.told("talk", "far", events.Configured(options=Options(speaker="Bob")))
        assert (await watch.event())["speaker"] == "Bob"
        await server.store.keep_final(key, final(0))
        puppet.notices.told("talk", "far", final(0))
        assert (await watch.event())["text"] == "segment 0"
        puppet.notices.told("talk", "far", events.StreamOver())
        assert (await watch.event())["type"] == "stream_ended"
        puppet.notices.told("another", "far", events.StreamOver())


async def test_what_was_missed_is_read_from_the_store(tmp_path: Path) -> None:
    """Finals, and that streams began and ended."""
    async with node(tmp_path) as (server, puppet), viewer(server) as watch:
        _, key = await begin(server.store, stream="far")
        for segment in range(3):
            await server.store.keep_final(key, final(segment))
        puppet.notices.missed("talk")
        await watch.until("final", segment=2)
        if "stream_started" not in [event["type"] for event in watch.events]:
            await watch.until("stream_started", stream="far")
        await server.store.keep_final(key, final(3))
        await server.store.end_stream(key, stats=StreamStats(), now_ms=1)
        puppet.notices.missed("talk")
        await watch.until("stream_ended", stream="far")
        assert finals_of(watch.events) == await stored(server)


async def test_the_store_is_looked_at_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "CHECK_EVERY_S", 0.05)
    async with node(tmp_path) as (server, _), viewer(server) as watch:
        _, key = await begin(server.store, stream="far")
        await server.store.keep_final(key, final(0))
        await watch.until("final", segment=0)
        await server.store.end_stream(key, stats=StreamStats(), now_ms=1)
        await watch.until("stream_ended", stream="far")


async def test_a_stream_is_given_up_only_when_the_store_says_so(tmp_path: Path) -> None:
    async with node(tmp_path) as (server, puppet), peer(server) as speaker:
        stream = stream_of(speaker)
        puppet.notices.taken("talk", stream, 2, "liar")
        puppet.notices.taken("talk", "unknown", 2, "liar")
        await speaker.say()
        token = hashlib.sha256(speaker.events[0]["resume_token"].encode()).digest()
        await server.store.resume_stream(stream, token, now_ms=1)
        puppet.notices.taken("talk", stream, 1, "late")
        puppet.notices.taken("talk", stream, 2, "other")
        assert await speaker.end() == 4409
        assert speaker.events[-1]["code"] == "superseded"


async def looked_at(monkeypatch: pytest.MonkeyPatch, server: Running, times: int = 3) -> None:
    """Wait for so many looks that find something to ask for."""
    looks, streams = 0, server.store.streams

    async def count(interview: str) -> tuple[Stream, ...]:
        nonlocal looks
        looks += 1
        return await streams(interview)

    with monkeypatch.context() as patch:
        patch.setattr(server.store, "streams", count)
        await until(lambda: looks >= times)


@asynccontextmanager
async def absent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Running, Puppet, End, End]]:
    """A node that looks often and waits for the speakers of two interviews, ``one`` and ``two``."""
    monkeypatch.setattr(neighbours, "CHECK_EVERY_S", 0.05)
    async with node(folder) as (server, puppet), peer(server, "one") as first, peer(server, "two") as second:
        for speaker in (first, second):
            cut_line(speaker.ws)
        await until(lambda: server.streams.waited_for() == ["one", "two"])
        yield server, puppet, first, second


async def test_who_waits_for_a_speaker_finds_out_that_another_node_has_him(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though nobody tells; those who wait beside him go on waiting."""
    async with absent(tmp_path, monkeypatch) as (server, puppet, gone, away):
        await taken_elsewhere(server, gone)
        await until(lambda: not server.streams.serves(stream_of(gone)))
        await looked_at(monkeypatch, server)
        assert server.streams.waited_for() == ["two"]
        assert puppet.claims == {stream_of(away): 1}


async def test_one_look_asks_for_so_many_absent_speakers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who began first; the others' turn comes when these are settled."""
    monkeypatch.setattr(neighbours, "MAX_WAITED", 1)
    async with absent(tmp_path, monkeypatch) as (server, _, first, second):
        for interview, speaker in (("two", second), ("one", first)):
            await looked_at(monkeypatch, server)
            assert server.streams.waited_for() == ["one", "two"], f"{interview} is not known to be taken"
            await taken_elsewhere(server, speaker)
        await until(lambda: not server.streams.waited_for())


async def test_who_waits_for_a_speaker_finds_out_that_his_interview_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with absent(tmp_path, monkeypatch) as (server, _, _, _):
        await server.store.delete_interview("one")
        await until(lambda: server.streams.waited_for() == ["two"])


async def test_an_interview_is_gone_only_when_the_store_says_so(tmp_path: Path) -> None:
    async with node(tmp_path) as (server, puppet), viewer(server) as watch, peer(server) as speaker:
        await speaker.say()
        puppet.notices.deleted("talk")
        puppet.notices.deleted("unknown")
        await speaker.say()
        await watch.until("final", segment=1)
        await server.store.delete_interview("talk")
        puppet.notices.deleted("talk")
        assert await speaker.end() == 1008
        assert await watch.end() == 1008
        assert watch.events[-1]["code"] == speaker.events[-1]["code"] == "stopped"


async def test_hints_that_come_in_masses_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MAX_QUESTIONS", 4)
    async with node(tmp_path) as (server, puppet), viewer(server) as watch, peer(server) as speaker:
        for _ in range(1_000):
            puppet.notices.deleted("talk")
            puppet.notices.taken("talk", stream_of(speaker), 9, "liar")
            puppet.notices.missed("talk")
        await speaker.say()
        await watch.until("final", segment=0)


# --- shares ------------------------------------------------------------------------------------------------------


async def test_others_count_too(tmp_path: Path) -> None:
    async with node(tmp_path, server=ServerSettings(max_sessions_per_key=2)) as (server, puppet):
        async with peer(server):
            assert len(puppet.leases) == 1
            puppet.answer = False
            with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                async with peer(server):
                    pass
            assert len(puppet.leases) == 1
            puppet.answer = None  # not known: this node counts by itself
            async with peer(server):
                with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                    async with peer(server):
                        pass
        await until(lambda: not puppet.leases)
