"""Viewers on real sockets: what they see, what they may, and that nobody suffers from them."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import aiohttp
import pytest

from streamsrv import events
from streamsrv.server import viewer as module
from streamsrv.server.app import HEARTBEAT_S
from streamsrv.server.viewer import FANOUT, VIEWERS, Viewer
from streamsrv.settings import ServerSettings
from streamsrv.stores.base import StreamKey
from tests.stores.builders import final
from tests.support.raw import BINARY, Raw, frame, handshake
from tests.support.server import Running, running
from tests.support.speech import silence
from tests.support.watching import End, Name, finals_of, name_of, peer, stored, until, viewer


def watching(server: Running) -> int:
    return server.app[FANOUT].viewers


def there(server: Running) -> list[Viewer]:
    found: set[Viewer] = server.app[VIEWERS]
    return list(found)


# --- what viewers see --------------------------------------------------------------------------------------------


async def test_a_viewer_sees_what_a_speaker_says(tmp_path: Path) -> None:
    async with running(tmp_path) as server, viewer(server) as watch:
        (ready,) = watch.events
        assert (ready["role"], ready["interview"], ready["status"], ready["streams"]) == ("viewer", "talk", None, [])
        assert "resume_token" not in ready
        async with peer(server, query="speaker=Ada") as speaker:
            await speaker.murmur()
            await speaker.ws.send_bytes(silence(0.8))
            await speaker.finish()
        await watch.until("stream_ended")
    kinds = [event["type"] for event in watch.events]
    assert kinds[:2] == ["ready", "stream_started"]
    assert {"partial", "speech_started", "speech_stopped", "utterance_end"} <= set(kinds)
    assert not {"ack", "closed", "configured"} & set(kinds)
    assert watch.events[1]["speaker"] == "Ada"
    said = [event for event in speaker.events if event["type"] == "final"]
    seen = [event for event in watch.events if event["type"] == "final"]
    assert [one["text"] for one in seen] == [one["text"] for one in said] != []
    assert {event["stream"] for event in watch.events[1:]} == {said[0]["stream"]}
    assert [event["seq"] for event in watch.events] == list(range(len(kinds)))


async def test_who_comes_late_gets_stored_finals_first_and_is_told_of_the_streams(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        async with peer(server, query="speaker=Ada&language=en-US") as first:
            await first.say(2)
            await first.finish()
        async with peer(server, query="speaker=Bob") as second:
            await second.say()
            async with viewer(server) as watch:
                ready = watch.events[0]
                await second.say()
                await watch.until("final", segment=1, stream=second.events[0]["stream"])
            assert ready["status"] == "live"
            told = [(one["speaker"], one["status"], one["channels"], one["order"]) for one in ready["streams"]]
            assert told == [("Ada", "ended", 1, 1), ("Bob", "live", 1, 2)]
            assert finals_of(watch.events) == await stored(server)


async def test_after_a_known_final_a_viewer_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path) as server, peer(server) as speaker:
        await speaker.say(3)
        names = await stored(server)
        after = ":".join(map(str, names[0]))
        async with viewer(server, query=f"after={after}") as watch:
            await speaker.say()
            await watch.until("final", segment=3)
        assert finals_of(watch.events) == (await stored(server))[1:]


@pytest.mark.parametrize("seed", range(6))
async def test_the_seam_on_real_sockets(tmp_path: Path, seed: int) -> None:
    """Speakers talk while viewers come, go and come back behind what they saw: each final once."""
    chance = random.Random(seed)
    over = asyncio.Event()

    async def speak(server: Running) -> None:
        async with peer(server) as speaker:
            for _ in range(6):
                await speaker.say(chance.randrange(1, 3))
            await speaker.finish()

    async def watch(server: Running) -> list[Name]:
        seen: list[Name] = []
        while True:
            last = over.is_set()
            after = f"after={seen[-1][0]}:{seen[-1][1]}:{seen[-1][2]}" if seen else ""
            async with viewer(server, query=after) as one:
                await _read_some(one, seen, chance.randrange(1, 40), await stored(server) if last else [])
            if last:
                return seen

    async with running(tmp_path) as server:
        viewers = [asyncio.create_task(watch(server)) for _ in range(3)]
        await asyncio.gather(*(speak(server) for _ in range(2)))
        over.set()
        for seen in await asyncio.gather(*viewers):
            assert sorted(seen) == sorted(await stored(server))
        await until(lambda: watching(server) == 0)


async def _read_some(one: End, seen: list[Name], count: int, wanted: list[Name]) -> None:
    """Read some events, or until all that is wanted was seen."""
    for _ in range(count if not wanted else 10_000):
        if wanted and len(seen) >= len(wanted):
            return
        try:
            async with asyncio.timeout(0.05 if not wanted else 20.0):
                event = await one.event()
        except TimeoutError:
            return
        if event["type"] == "final":
            seen.append(name_of(event))


# --- what viewers may --------------------------------------------------------------------------------------------


async def test_a_viewer_only_listens(tmp_path: Path) -> None:
    async with running(tmp_path) as server, viewer(server) as watch:
        await watch.ws.send_json({"type": "keepalive"})
        await watch.ws.send_bytes(b"")
        await watch.ws.send_json({"type": "flush"})
        await watch.ws.send_bytes(bytes(640))
        await watch.ws.send_json({"type": "finish"})
        async with peer(server) as speaker:
            await speaker.say()
        await watch.until("final")
        warned = [event for event in watch.events if event["type"] == "warning"]
        assert [event["code"] for event in warned] == ["viewer"]
        assert (await server.store.interview("talk")) is not None


async def test_unknown_options_are_named(tmp_path: Path) -> None:
    async with running(tmp_path) as server, viewer(server, query="langauge=en") as watch:
        warning = await watch.event()
        assert (warning["code"], "langauge" in warning["message"]) == ("unknown_option", True)


@pytest.mark.parametrize(
    ("sent", "code", "error"),
    [
        ("hello", 1007, "bad_message"),
        ('{"type": 1}', 1007, "bad_message"),
        ('{"a": "' + "x" * 17_000 + '"}', 1009, "message_too_big"),
    ],
)
async def test_what_is_no_message_ends_it_with_a_word(tmp_path: Path, sent: str, code: int, error: str) -> None:
    async with running(tmp_path) as server, viewer(server) as watch:
        await watch.ws.send_str(sent)
        assert await watch.end() == code
        assert watch.events[-1]["code"] == error
        await until(lambda: watching(server) == 0)


async def test_a_flood_ends_it(tmp_path: Path) -> None:
    async with running(tmp_path) as server, viewer(server) as watch:
        for _ in range(100):
            await watch.ws.send_json({"type": "keepalive"})
        assert await watch.end() == 4429
        assert watch.events[-1]["code"] == "flood"


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("role=boss", 400, "bad_request"),
        ("role=viewer&after=x", 400, "bad_request"),
        ("role=viewer&after=s:1:a", 400, "bad_request"),
        ("role=viewer&after=s:1:9999999999", 400, "bad_request"),
        ("role=viewer&after=:1:1", 400, "bad_request"),
    ],
)
async def test_what_is_wrong_is_refused_before_the_upgrade(tmp_path: Path, query: str, status: int, code: str) -> None:
    async with running(tmp_path) as server:
        raw = await Raw.connect(server.port)
        answer = await raw.ask(handshake(f"/transcription/stream/talk?{query}", server.port))
        raw.close()
        assert (answer.status, answer.code) == (status, code)


async def test_viewers_have_their_own_cap_and_take_no_sessions(tmp_path: Path) -> None:
    settings = ServerSettings(max_viewers=1, max_sessions=1)
    async with running(tmp_path, server=settings) as server, viewer(server), peer(server) as speaker:
        raw = await Raw.connect(server.port)
        answer = await raw.ask(handshake("/transcription/stream/talk?role=viewer", server.port))
        assert (answer.status, answer.code, "retry-after" in answer.headers) == (503, "full", True)
        await speaker.say()
        raw.close()


# --- how it ends -------------------------------------------------------------------------------------------------


async def test_a_server_that_stops_sends_its_viewers_away(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as http:
        async with running(tmp_path) as server:
            ws = await http.ws_connect(server.stream("talk", "role=viewer"))
            watch = End(ws)
            await watch.event()
            ending = asyncio.create_task(watch.end())
            await asyncio.sleep(0)
        assert await ending == 1012
        assert (watch.events[-1]["code"], watch.events[-1]["retryable"]) == ("draining", True)


async def test_a_draining_server_warns_and_takes_no_viewers(tmp_path: Path) -> None:
    async with running(tmp_path) as server, viewer(server) as watch:
        await server.streams.drain(0.0)
        assert (await watch.event())["type"] == "goaway"
        with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
            async with viewer(server):
                pass


async def test_a_viewer_is_held_by_answering_pings_alone(tmp_path: Path) -> None:
    async with running(tmp_path) as server, viewer(server) as watch:
        quiet = await Raw.connect(server.port)
        await quiet.upgrade("/transcription/stream/talk?role=viewer")
        loop = asyncio.get_running_loop()
        await until(lambda: watching(server) == 2)
        reading = asyncio.create_task(watch.end())
        begun = loop.time()
        for beat in (1.0, 1.6):
            for one in there(server):
                one.pulse(one.last_seen + HEARTBEAT_S * beat, HEARTBEAT_S)
            if beat == 1.0:
                await until(lambda: sum(one.last_seen > begun for one in server.app[VIEWERS]) == 1)
                for one in there(server):  # the one that answered is not silent now
                    if one.last_seen > begun:
                        one.pulse(one.last_seen, HEARTBEAT_S)
                        one.held = True
        await until(lambda: watching(server) == 1)
        assert not reading.done()
        await quiet.gone()
        quiet.close()
        reading.cancel()


async def test_a_viewer_that_stops_reading_is_cut_and_nobody_else_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEND_WITHIN_S", 0.2)
    async with running(tmp_path) as server, viewer(server) as watch:
        stuck = await Raw.connect(server.port, receive_buffer=4_096)
        await stuck.upgrade("/transcription/stream/talk?role=viewer")
        await until(lambda: watching(server) == 2)
        key = StreamKey(interview="talk", stream="s", epoch=1)
        text = "w" * 100_000
        for segment in range(40):
            server.app[FANOUT].tell(key, final(segment, text=text))
            event = await watch.event()
            assert (event["segment"], len(event["text"])) == (segment, len(text))
        await until(lambda: watching(server) == 1)
        server.app[FANOUT].tell(key, events.StreamOver())
        assert (await watch.event())["type"] == "stream_ended"
        stuck.close()


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_viewer_that_leaves_leaves_nothing(tmp_path: Path, how: str) -> None:
    async with running(tmp_path) as server:
        raw = await Raw.connect(server.port)
        await raw.upgrade("/transcription/stream/talk?role=viewer")
        await until(lambda: watching(server) == 1)
        raw.reset() if how == "reset" else raw.close()
        await until(lambda: watching(server) == 0)
        assert server.app[VIEWERS] == set()


async def test_a_broken_frame_ends_it_with_a_word(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        raw = await Raw.connect(server.port)
        await raw.upgrade("/transcription/stream/talk?role=viewer")
        await raw.send(frame(BINARY, b"x", rsv=7))
        end = await raw.end()
        raw.close()
        assert (end.code, end.error) == (1002, "protocol_error")
