"""Two nodes and a real Redis: what they tell each other when all is well."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis

from streamsrv.runtime import neighbours
from streamsrv.shared_state import redis as module
from streamsrv.shared_state._redis.wire import Taken, encode
from tests.services.nodes import count, neighbour_client, two_nodes, until_so
from tests.support.server import Running
from tests.support.speech import silence
from tests.support.watching import End, Json, Name, finals_of, name_of, peer, stored, until, viewer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes every few seconds comes often."""
    monkeypatch.setattr(module, "BEAT_S", 0.2)


def told(events: list[Json]) -> list[str]:
    """Events but for partials, without what belongs to one connection."""
    return [
        json.dumps({name: value for name, value in event.items() if name not in ("session", "seq")})
        for event in events
        if event["type"] != "partial"
    ]


# --- viewers -----------------------------------------------------------------------------------------------------


async def test_a_viewer_is_told_the_same_on_every_node(tmp_path: Path, redis_url: str) -> None:
    async with two_nodes(tmp_path, redis_url) as nodes, viewer(nodes.one) as near, viewer(nodes.two) as far:
        await until(lambda: listens(nodes.two))
        async with peer(nodes.one, query="speaker=Ada") as speaker:
            await speaker.murmur()
            await speaker.ws.send_bytes(silence(0.8))
            await speaker.say(2)
            await speaker.finish()
        await near.until("stream_ended")
        await far.until("stream_ended")
        kinds = [event["type"] for event in far.events]
        assert kinds[:2] == ["ready", "stream_started"]
        assert {"partial", "speech_started", "speech_stopped", "utterance_end", "final"} <= set(kinds)
        assert sorted(told(far.events)) == sorted(told(near.events))
        assert finals_of(far.events) == await stored(nodes.one) != []
        assert (count(nodes.two, "missed"), count(nodes.one, "dropped")) == (0, 0)


async def test_an_event_stream_is_told_too(tmp_path: Path, redis_url: str) -> None:
    async with two_nodes(tmp_path, redis_url) as nodes, aiohttp.ClientSession() as http:
        async with http.get(nodes.two.http + "/transcription/talk/events") as answer:
            await until(lambda: listens(nodes.two))
            async with peer(nodes.one) as speaker:
                await speaker.say()
            kinds: list[str] = []
            while "final" not in kinds:
                line = (await answer.content.readline()).decode()
                if line.startswith("event: "):
                    kinds.append(line.split()[1])
        assert kinds[:2] == ["ready", "stream_started"]


async def test_who_comes_while_somebody_speaks_elsewhere_hears_what_follows(tmp_path: Path, redis_url: str) -> None:
    async with two_nodes(tmp_path, redis_url) as nodes, peer(nodes.one) as speaker:
        await speaker.say(2)
        assert count(nodes.one, "published") == 0  # nobody watches: nothing is sent
        async with viewer(nodes.two) as watch:
            assert [one["status"] for one in watch.events[0]["streams"]] == ["live"]
            await watch.until("final", segment=1)
            await speaker.say()
            await watch.until("final", segment=2)
            assert finals_of(watch.events) == await stored(nodes.one)
        await until(lambda: not listens(nodes.two))
        await speaker.say()
        before = count(nodes.one, "published")
        await speaker.say()
        assert count(nodes.one, "published") == before


async def test_a_viewer_of_its_own_is_no_reason_to_publish(tmp_path: Path, redis_url: str) -> None:
    async with two_nodes(tmp_path, redis_url) as nodes, viewer(nodes.one) as watch:
        await until(lambda: listens(nodes.one))
        async with peer(nodes.one) as speaker:
            await speaker.say(2)
        await watch.until("final", segment=1)
        assert count(nodes.one, "published") == 0


@pytest.mark.parametrize("seed", range(4))
async def test_speakers_and_viewers_on_both_nodes(tmp_path: Path, redis_url: str, seed: int) -> None:
    """Viewers come, go and come back, to either node: each sees every final once."""
    chance = random.Random(seed)
    over = asyncio.Event()

    async def speak(server: Running) -> None:
        async with peer(server) as speaker:
            for _ in range(5):
                await speaker.say(chance.randrange(1, 3))
            await speaker.finish()

    async def watch(nodes: tuple[Running, Running]) -> list[Name]:
        seen: list[Name] = []
        while True:
            last = over.is_set()
            after = ":".join(map(str, seen[-1])) if seen else ""
            async with viewer(chance.choice(nodes), query=f"after={after}" if after else "") as one:
                await read_some(one, seen, chance.randrange(1, 40), await stored(nodes[0]) if last else [])
            if last:
                return seen

    async with two_nodes(tmp_path, redis_url) as nodes:
        viewers = [asyncio.create_task(watch(nodes)) for _ in range(3)]
        await asyncio.gather(*(speak(server) for server in (*nodes, *nodes)))
        over.set()
        for seen in await asyncio.gather(*viewers):
            assert sorted(seen) == sorted(await stored(nodes.one))


async def read_some(one: End, seen: list[Name], most: int, wanted: list[Name]) -> None:
    """Read some events, or until all that is wanted was seen."""
    for _ in range(most if not wanted else 10_000):
        if wanted and len(seen) >= len(wanted):
            return
        try:
            async with asyncio.timeout(0.05 if not wanted else 20.0):
                event = await one.event()
        except TimeoutError:
            return
        if event["type"] == "final":
            seen.append(name_of(event))


# --- who speaks --------------------------------------------------------------------------------------------------


async def test_a_stream_resumed_on_another_node_is_given_up_at_once(tmp_path: Path, redis_url: str) -> None:
    """The old owner has nothing to store, so that only a word from the new one can tell it."""
    async with two_nodes(tmp_path, redis_url) as nodes, peer(nodes.one) as old:
        await old.say()
        token = old.events[0]["resume_token"]
        begun = asyncio.get_running_loop().time()
        async with peer(nodes.two, query=f"resume={token}") as new:
            assert await old.end() == 4409
            assert asyncio.get_running_loop().time() - begun < 1.0
            assert old.events[-1]["code"] == "superseded"
            await new.say(3)  # the first of them is what it said before
            await new.finish()
        assert [name[2] for name in await stored(nodes.one)] == [0, 1, 2]


async def test_a_false_word_takes_no_stream(tmp_path: Path, redis_url: str) -> None:
    async with two_nodes(tmp_path, redis_url) as nodes, peer(nodes.one) as speaker, neighbour_client(redis_url) as liar:
        stream = speaker.events[0]["stream"]
        heard = count(nodes.one, "received")
        for word in (encode(Taken("liar", "talk", stream, 9)), b"", b"\xc1" * 99, b"x" * 2_000_000):
            await liar.publish("streamsrv:nodes", word)
        await until(lambda: count(nodes.one, "received") >= heard + 4)
        assert count(nodes.one, "unreadable") == 3
        await speaker.say()
        await speaker.finish()


async def test_claims_tell_what_is_served_and_go_with_the_session(tmp_path: Path, redis_url: str) -> None:
    async with (
        two_nodes(tmp_path, redis_url) as nodes,
        peer(nodes.one) as speaker,
        neighbour_client(redis_url) as looker,
    ):
        key = f"streamsrv:speaker:{speaker.events[0]['stream']}"
        await until_so(lambda: owner(looker, key), "1 one")
        async with peer(nodes.two, query=f"resume={speaker.events[0]['resume_token']}") as new:
            await until_so(lambda: owner(looker, key), "2 two")
            await new.finish()
        await until_so(lambda: looker.exists(key), 0)


async def owner(looker: Redis, key: str) -> str:
    return str(await looker.get(key)).partition(".")[0]


@pytest.mark.parametrize("claimed", [True, False])
async def test_only_who_held_the_stream_is_told_unless_nobody_knows_who(
    tmp_path: Path, redis_url: str, claimed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT_S", 60.0)  # nobody claims it anew meanwhile
    async with (
        two_nodes(tmp_path, redis_url) as nodes,
        peer(nodes.one) as old,
        neighbour_client(redis_url) as looker,
        Redis.from_url(redis_url, protocol=2) as listener,
        listener.pubsub() as ear,
    ):
        key = f"streamsrv:speaker:{old.events[0]['stream']}"
        await until_so(lambda: looker.exists(key), 1)
        await ear.subscribe("streamsrv:nodes")
        if not claimed:
            await looker.delete(key)
        async with peer(nodes.two, query=f"resume={old.events[0]['resume_token']}"):
            assert await old.end() == 4409
        heard = [await ear.get_message(timeout=0.1) for _ in range(3)]
        assert [one["type"] for one in heard if one is not None] == ["subscribe"] + ["message"] * (not claimed)


async def test_a_deletion_is_heard_on_every_node(tmp_path: Path, redis_url: str) -> None:
    async with two_nodes(tmp_path, redis_url) as nodes, viewer(nodes.two) as watch, peer(nodes.two) as speaker:
        await speaker.say()
        async with aiohttp.ClientSession() as http, http.delete(nodes.one.http + "/transcription/talk") as answer:
            assert answer.status == 204
        assert await watch.end() == 1008
        assert watch.events[-1]["code"] == "stopped"
        assert await speaker.end() == 1008
        assert speaker.events[-1]["code"] == "stopped"


# --- what is lost ------------------------------------------------------------------------------------------------


async def test_a_message_that_is_lost_is_missed_by_the_next_sign(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_nodes(tmp_path, redis_url) as nodes, viewer(nodes.two) as watch, peer(nodes.one) as speaker:
        await speaker.say()
        await watch.until("final", segment=0)
        with monkeypatch.context() as patch:
            lose(nodes.one, patch)
            await speaker.say()
            assert finals_of(watch.events) != await stored(nodes.one)
        await watch.until("final", segment=1)
        assert count(nodes.two, "missed") >= 1
        assert finals_of(watch.events) == await stored(nodes.one)


async def test_what_was_not_told_for_want_of_viewers_is_missed_when_there_are_some(
    tmp_path: Path, redis_url: str
) -> None:
    """An answer that was true once makes a node believe that nobody watches."""
    async with two_nodes(tmp_path, redis_url) as nodes, viewer(nodes.two) as watch, peer(nodes.one) as speaker:
        await speaker.say()
        await watch.until("final", segment=0)
        state: Any = nodes.one.shared
        state._telling.answered(["talk"], [b"streamsrv:live:talk", 0])
        await speaker.say()
        async with asyncio.timeout(neighbours.CHECK_EVERY_S / 2):
            await watch.until("final", segment=1)


async def test_what_is_lost_for_good_is_found_in_the_store(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "CHECK_EVERY_S", 0.2)
    async with two_nodes(tmp_path, redis_url) as nodes, viewer(nodes.two) as watch:
        await until(lambda: listens(nodes.two))
        lose(nodes.one, monkeypatch)
        async with peer(nodes.one) as speaker:
            await speaker.say(2)
            await watch.until("final", segment=1)
            await watch.until("stream_started")
        assert count(nodes.one, "published") > 0
        assert count(nodes.two, "missed") == 0
        assert finals_of(watch.events) == await stored(nodes.one)


def lose(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """All this node publishes is lost without a trace: it believes that somebody received it."""
    link: Any = server.shared
    run = link._link.run

    async def lossy(commands: Sequence[tuple[object, ...]]) -> list[object]:
        answers = iter(await run([command for command in commands if command[0] != "PUBLISH"]))
        return [2 if command[0] == "PUBLISH" else next(answers) for command in commands]

    monkeypatch.setattr(link._link, "run", lossy)


def listens(server: Running) -> bool:
    shared: Any = server.shared
    return bool(shared._hearing.listens("talk"))


# --- what Redis knows --------------------------------------------------------------------------------------------


async def test_redis_keeps_no_words_and_no_keys(tmp_path: Path, redis_url: str) -> None:
    async with two_nodes(tmp_path, redis_url) as nodes, viewer(nodes.two), peer(nodes.one) as speaker:
        await speaker.say()
        async with neighbour_client(redis_url) as looker:
            names = [str(name) for name in await looker.keys("streamsrv:*")]
            assert {name.split(":")[1] for name in names} <= {"node", "speaker", "share"}
            for name in names:
                assert await looker.pttl(name) > 0, name
                if await looker.type(name) == "string":
                    assert "w0" not in str(await looker.get(name))
