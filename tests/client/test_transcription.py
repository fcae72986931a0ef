"""The client against a server that does what the test says: nothing is lost, nothing comes twice, every end is told."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from streamsrv.client import (
    AudioForgotten,
    Closed,
    Final,
    GaveUp,
    Misused,
    NotUnderstood,
    Options,
    Partial,
    Ready,
    Reconnecting,
    Refused,
    SpeechStarted,
    Transcription,
    Unknown,
    Unreachable,
)
from streamsrv.client.inbox import Inbox
from streamsrv.client.transcription import QUIET_S
from tests.client.scripted import Call, HandTime, Script, refuse, serving, talk, turns, until

NOISE = random.Random(7).randbytes(400_000)
SECOND = 32_000
"""Bytes of a second at the defaults."""


def opened(url: str, time: HandTime | None = None, **more: object) -> Transcription:
    options = more.pop("options", Options())
    return Transcription(url, "talk", options, time=time or HandTime(), chance=lambda: 1.0, **more)  # type: ignore[arg-type]


async def collect(stream: Transcription) -> list[object]:
    return [event async for event in stream.events()]


async def speak(stream: Transcription, audio: bytes = b"") -> None:
    """Say it all and finish."""
    async with stream:
        await stream.send(audio)
        await stream.finish()


async def everything(call: Call) -> None:
    """A server that takes all audio and ends well."""
    await call.ready()
    await call.end()


def finals_of(events: list[object]) -> list[str]:
    return [event.text for event in events if isinstance(event, Final)]


# --- one connection ---------------------------------------------------------------------------------------------


async def test_audio_arrives_byte_for_byte_and_events_are_typed() -> None:
    async def script(call: Call) -> None:
        await call.ready()
        await call.say("speech_started", channel=0, utterance=0, at_ms=20)
        await call.say("partial", channel=0, segment=0, text="and so", stable_chars=3, lag_ms=5)
        await call.hear(len(NOISE))
        await call.final(0, "and so my", words=[{"text": "and", "start_ms": 1, "stop_ms": 2, "confidence": 0.5}])
        await call.end(finals=1)

    async with serving(talk(script)) as server, opened(server.url) as stream:
        reading = asyncio.create_task(collect(stream))
        for at in range(0, len(NOISE), 3_333):  # pieces that split samples
            await stream.send(NOISE[at : at + 3_333])
        closed = await stream.finish()
        events = await reading
        assert bytes(server.calls[0].audio) == NOISE
    assert [type(event) for event in events] == [Ready, SpeechStarted, Partial, Final, Closed]
    assert closed.finals == 1
    assert closed.audio_ms == 1234
    assert isinstance(events[3], Final)
    assert events[3].words[0].confidence == 0.5


async def test_options_and_key_go_up_what_is_usual_does_not() -> None:
    options = Options(encoding="mulaw", sample_rate=8_000, multichannel=True, channels=2, speaker="a b", interim=False)
    async with serving(talk(everything)) as server:
        async with opened(server.url, options=options, api_key="key-12345"):
            pass
        request = server.requests[0]
    assert dict(request.query) == {
        "encoding": "mulaw",
        "sample_rate": "8000",
        "channels": "2",
        "multichannel": "true",
        "interim": "false",
        "speaker": "a b",
    }
    assert request.headers["Authorization"] == "Bearer key-12345"


async def test_newer_servers_are_tolerated() -> None:
    async def script(call: Call) -> None:
        await call.ready(colour="green", engine={"name": "e", "new": 1})
        await call.say("mood", joy=3)
        await call.end()

    async with serving(talk(script)) as server, opened(server.url) as stream:
        await stream.finish()
        events = await collect(stream)
    assert isinstance(events[1], Unknown)
    assert events[1].kind == "mood"


async def test_leaving_the_block_finishes() -> None:
    async with serving(talk(everything)) as server:
        async with opened(server.url) as stream:
            await stream.send(NOISE)
        assert bytes(server.calls[0].audio) == NOISE


async def fail_within(stream: Transcription, audio: bytes) -> None:
    async with stream:
        await stream.send(audio)
        await turns()
        raise KeyError


async def test_an_exception_in_the_block_ends_the_stream_without_waiting() -> None:
    async def script(call: Call) -> None:
        await call.ready()
        await call.gone()

    async with serving(talk(script)) as server:
        with pytest.raises(KeyError):
            await fail_within(opened(server.url), NOISE[:3200])
        await until(lambda: server.calls[0].left_with is not None)
        assert server.calls[0].left_with == 1000


async def test_a_block_left_at_once_leaves_nothing_behind() -> None:
    async def script(call: Call) -> None:
        await call.ready()
        await call.gone()

    async with serving(talk(script)) as server:
        with pytest.raises(KeyError):
            async with opened(server.url) as stream:
                raise KeyError
        assert await collect(stream) == []
        await until(lambda: server.calls[0].left_with == 1000)


async def test_misuse_is_told() -> None:
    with pytest.raises(Misused):
        Transcription("localhost", "talk")
    with pytest.raises(Misused):
        Transcription("ws://localhost", "")
    with pytest.raises(Misused):
        Transcription("ws://localhost", "talk", backlog_s=5)
    stream = Transcription("ws://localhost", "talk")
    with pytest.raises(Misused):
        await stream.send(b"12")
    async with serving(talk(everything)) as server, opened(server.url) as stream:
        await stream.finish()
        with pytest.raises(Misused):
            await stream.send(b"12")


async def test_what_is_not_the_protocol_is_an_error() -> None:
    async def script(call: Call) -> None:
        await call.ready()
        await call.ws.send_str('{"type":"final","text":7}')
        await call.gone()

    async with serving(talk(script)) as server:
        with pytest.raises(NotUnderstood) as caught:
            async with opened(server.url) as stream:
                await stream.finish()
    assert "7" not in caught.value.message


# --- refused at the door ----------------------------------------------------------------------------------------


async def test_a_refusal_says_what_the_server_said() -> None:
    async with serving(refuse(503, "full", headers={"Retry-After": "7"}, retryable=True)) as server:
        with pytest.raises(Refused) as caught:
            async with opened(server.url):
                pass
    error = caught.value
    assert (error.status, error.code, error.message, error.hint) == (503, "full", "no: full", "do otherwise")
    assert (error.retryable, error.retry_after_s) == (True, 7.0)


async def test_an_answer_that_is_no_websocket_is_a_refusal() -> None:
    async def page(_: web.Request) -> web.StreamResponse:
        return web.Response(text="<h1>hello</h1>")

    async with serving(page) as server:
        with pytest.raises(Refused) as caught:
            async with opened(server.url):
                pass
    assert caught.value.status == 200


async def test_nobody_there() -> None:
    async with serving() as server:
        url = server.url
    with pytest.raises(Unreachable, match="refused"):
        async with opened(url):
            pass


async def test_closed_before_ready() -> None:
    async def script(call: Call) -> None:
        await call.say("error", code="full", message="1000 sessions", hint="later", retryable=True, retry_after_ms=500)
        await call.ws.close(code=1013)

    async with serving(talk(script)) as server:
        with pytest.raises(Refused) as caught:
            async with opened(server.url):
                pass
    assert (caught.value.status, caught.value.code, caught.value.retry_after_s) == (1013, "full", 0.5)
    assert caught.value.retryable


# --- cut and resumed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
async def test_after_cuts_the_server_has_every_byte_once(seed: int) -> None:
    chance = random.Random(seed)
    whole = bytearray()  # what a server that believes its own resume_at has

    def cut_at(total: int) -> Script:
        async def script(call: Call) -> None:
            acked = len(whole)
            resume_at = max(0, acked // 2 - chance.randrange(9_600))
            del whole[resume_at * 2 :]
            await call.ready(resume_at=resume_at)
            await call.hear(total)
            whole.extend(call.audio)
            await call.say("ack", samples=len(whole) // 2)
            del whole[len(whole) // 2 * 2 :]
            call.cut()

        return talk(script)

    async def last(call: Call) -> None:
        resume_at = max(0, len(whole) // 2 - 9_600)
        del whole[resume_at * 2 :]
        await call.ready(resume_at=resume_at)
        await call.end()
        whole.extend(call.audio)

    scripts = [cut_at(chance.randrange(1, 90_000)) for _ in range(3)]
    async with serving(*scripts, talk(last)) as server, opened(server.url) as stream:
        at = 0
        while at < len(NOISE):
            size = chance.randrange(1, 20_000)
            await stream.send(NOISE[at : at + size])
            at += size
        await stream.finish()
        assert [request.query.get("resume") for request in server.requests] == [None] + ["st-1.token"] * 3
        assert server.requests[1].query_string == "resume=st-1.token"
    assert bytes(whole) == NOISE


async def test_a_cut_is_told_and_finals_come_once() -> None:
    async def first(call: Call) -> None:
        await call.ready()
        await call.final(0, "one")
        await call.final(1, "two")
        call.cut()

    async def second(call: Call) -> None:
        stored = [{"channel": 0, "segment": n, "text": text} for n, text in enumerate(("one", "two", "three"))]
        await call.ready(finals=stored, epoch=2)
        await call.final(1, "two")
        await call.final(3, "four")
        await call.final(0, "other channel", channel=1)
        await call.end(finals=5)

    async with serving(talk(first), talk(second)) as server, opened(server.url) as stream:
        await stream.finish()
        events = await collect(stream)
    assert finals_of(events) == ["one", "two", "three", "four", "other channel"]
    away = next(event for event in events if isinstance(event, Reconnecting))
    assert (away.attempt, away.pause_s) == (1, 0.25)
    assert all(event.stream == "st-1" for event in events if isinstance(event, Final))


async def test_pauses_grow_and_the_servers_wish_is_kept() -> None:
    async def first(call: Call) -> None:
        await call.ready()
        await call.ws.close(code=1012)

    time = HandTime()
    busy = [refuse(503, "draining") for _ in range(6)]
    patient = refuse(503, "full", headers={"Retry-After": "20"})
    async with serving(talk(first), *busy, patient, talk(everything)) as server, opened(server.url, time) as stream:
        await stream.finish()
    assert time.pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 20.0]


async def test_pauses_begin_anew_only_after_something_came_forward() -> None:
    async def die(call: Call) -> None:
        await call.ready()
        await call.say("partial", channel=0, segment=0, text="x")
        call.cut()

    async def work(call: Call) -> None:
        await call.ready()
        await call.final(0, "x")
        call.cut()

    time = HandTime()
    scripts = [talk(die), talk(die), talk(die), talk(work), talk(everything)]
    async with serving(*scripts) as server, opened(server.url, time) as stream:
        await stream.finish()
    assert time.pauses == [0.25, 0.5, 1.0, 0.25]


async def test_it_gives_up_and_says_what_is_not_acknowledged() -> None:
    async def first(call: Call) -> None:
        await call.ready()
        await call.hear(3 * SECOND)
        await call.say("ack", samples=16_000)
        call.cut()

    time = HandTime()
    refusals = [refuse(503, "draining") for _ in range(10)]
    async with serving(talk(first), *refusals) as server:
        with pytest.raises(GaveUp, match=r"2\.0 s of audio"):
            await speak(opened(server.url, time, give_up_s=20), NOISE[: 3 * SECOND])
    assert sum(time.pauses) <= 20


@pytest.mark.parametrize(
    ("status", "code"), [(400, "bad_request"), (401, "unauthorized"), (403, "forbidden"), (404, "not_found")]
)
async def test_final_answers_end_the_attempts(status: int, code: str) -> None:
    async def first(call: Call) -> None:
        await call.ready()
        call.cut()

    async with serving(talk(first), refuse(status, code)) as server:
        with pytest.raises(Refused) as caught:
            async with opened(server.url) as stream:
                await stream.finish()
    assert (caught.value.status, caught.value.code) == (status, code)


async def test_410_reaches_whoever_waits_after_the_events_before_it() -> None:
    async def first(call: Call) -> None:
        await call.ready()
        await call.final(0, "one")
        call.cut()

    seen: list[object] = []

    async def read(stream: Transcription) -> None:
        async with stream:
            async for event in stream.events():
                seen.append(event)  # noqa: PERF401 - the events before the error are the point

    async with serving(talk(first), refuse(410, "stream_ended")) as server:
        stream = opened(server.url)
        with pytest.raises(Refused) as caught:
            await read(stream)
        assert caught.value.code == "stream_ended"
        with pytest.raises(Refused):
            await stream.send(b"12")
        with pytest.raises(Refused):
            await stream.finish()
    assert finals_of(seen) == ["one"]


@pytest.mark.parametrize(
    ("close", "error"),
    [
        (4409, None),
        (4413, {"code": "too_long", "message": "over 4 h", "retryable": False}),
        (1008, {"code": "stopped", "message": "deleted", "retryable": False}),
    ],
)
async def test_some_closes_are_for_good(close: int, error: dict[str, object] | None) -> None:
    async def script(call: Call) -> None:
        await call.ready()
        if error:
            await call.say("error", **error)
        await call.ws.close(code=close)

    async with serving(talk(script)) as server:
        with pytest.raises(Refused) as caught:
            async with opened(server.url) as stream:
                await stream.finish()
        assert len(server.requests) == 1
    assert caught.value.status == close
    assert caught.value.code == (error["code"] if error else "superseded")


async def cut(call: Call) -> None:
    """A line that breaks as soon as the stream is there."""
    await call.ready()
    call.cut()


def answered_after(moment: asyncio.Event) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """An attempt that the network delivers late."""

    async def slow(_: web.Request) -> web.StreamResponse:
        await moment.wait()
        return web.Response()

    return slow


async def test_a_late_attempt_of_our_own_takes_the_stream_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network delivers the request of an attempt that was given up after that of the next one."""
    monkeypatch.setattr("streamsrv.client.link.HANDSHAKE_S", 0.2)
    given_up = asyncio.Event()

    slow = answered_after(given_up)

    async def superseded(call: Call) -> None:
        given_up.set()
        await call.ready()
        await call.ws.close(code=4409)

    scripts = (talk(cut), slow, talk(superseded), talk(superseded))
    async with serving(*scripts) as server:
        with pytest.raises(Refused) as caught:
            async with opened(server.url) as stream:
                await stream.finish()
        assert len(server.requests) == 4, "it came back from the first, the second was somebody else"
    assert caught.value.status == 4409


async def test_an_attempt_that_breaks_is_one_attempt() -> None:
    """The server may still be busy with it, and take the stream for it when the next one has it already."""

    async def breaks(request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def superseded(call: Call) -> None:
        await call.ready()
        await call.ws.close(code=4409)

    async with serving(talk(cut), breaks, talk(superseded), talk(everything)) as server, opened(server.url) as stream:
        await stream.send(NOISE)
        assert (await stream.finish()).cause == "finish"
        assert bytes(server.calls[-1].audio) == NOISE
        assert len(server.requests) == 4


async def test_a_late_attempt_of_our_own_overtakes_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ask for the stream at the same moment: the server refuses the one that has lost."""
    monkeypatch.setattr("streamsrv.client.link.HANDSHAKE_S", 0.2)
    given_up = asyncio.Event()

    slow = answered_after(given_up)

    async def overtaken(request: web.Request) -> web.StreamResponse:
        given_up.set()
        return await refuse(409, "superseded")(request)

    async with serving(talk(cut), slow, overtaken, talk(everything)) as server, opened(server.url) as stream:
        await stream.send(NOISE)
        assert (await stream.finish()).cause == "finish"
        assert bytes(server.calls[1].audio) == NOISE


@pytest.mark.parametrize("close", [1000, 1001, 1002, 1011, 1012, 1013, 4408, 4429])
async def test_other_closes_are_not(close: int) -> None:
    async def script(call: Call) -> None:
        await call.ready()
        await call.say("error", code="x", message="y", retryable=False)
        await call.ws.close(code=close)

    async with serving(talk(script), talk(everything)) as server, opened(server.url) as stream:
        await stream.send(NOISE)
        assert (await stream.finish()).cause == "finish"
        assert bytes(server.calls[1].audio) == NOISE


async def test_closed_after_an_error_is_an_error() -> None:
    async def script(call: Call) -> None:
        await call.ready()
        await call.say("error", code="stopped", message="the interview was deleted", retryable=False)
        await call.say("closed", cause="error", audio_ms=0, finals=0)
        await call.ws.close(code=1008)

    async with serving(talk(script)) as server:
        with pytest.raises(Refused, match="deleted"):
            async with opened(server.url) as stream:
                await stream.finish()


async def test_a_server_that_asks_for_what_was_acknowledged_is_told_apart() -> None:
    async def first(call: Call) -> None:
        await call.ready()
        await call.hear(5 * SECOND)
        await call.say("ack", samples=64_000)
        call.cut()

    async def second(call: Call) -> None:
        await call.ready(resume_at=0)
        await call.gone()

    async with serving(talk(first), talk(second)) as server:
        with pytest.raises(AudioForgotten):
            await speak(opened(server.url), NOISE[: 5 * SECOND])


async def test_flushes_keep_their_places_and_are_sent_again() -> None:
    places: list[int] = []

    async def first(call: Call) -> None:
        await call.ready()
        assert await call.command() == "flush"
        places.append(len(call.audio))
        await call.say("ack", samples=0, flushed=True)
        assert await call.command() == "flush"
        call.cut()

    async def second(call: Call) -> None:
        await call.ready()
        assert await call.command() == "flush"
        places.append(len(call.audio))
        await call.say("ack", samples=0, flushed=True)
        await call.end()

    async with serving(talk(first), talk(second)) as server, opened(server.url) as stream:
        await stream.send(NOISE[:7_000])
        await stream.flush()
        await stream.send(NOISE[7_000:10_000])
        await stream.flush()
        await stream.send(NOISE[10_000:])
        await stream.finish()
        assert bytes(server.calls[1].audio) == NOISE
    assert places == [7_000, 10_000]


# --- bounds and watchfulness ------------------------------------------------------------------------------------


PHONE = Options(encoding="mulaw", sample_rate=8_000)


async def test_send_waits_when_the_backlog_is_full_and_an_ack_frees_it() -> None:
    go = asyncio.Event()

    async def script(call: Call) -> None:
        await call.ready()
        await call.hear(240_000)
        await go.wait()
        await call.say("ack", samples=16_000)
        await call.hear(248_000)
        await call.say("ack", samples=248_000)
        await call.end()

    async with serving(talk(script)) as server, opened(server.url, options=PHONE, backlog_s=30) as stream:
        sending = asyncio.create_task(stream.send(NOISE[:300_000]))
        await until(lambda: bool(server.calls) and len(server.calls[0].audio) == 240_000)
        await turns()
        assert not sending.done()
        assert stream.unacknowledged_s == 30.0
        go.set()
        await sending
        await stream.finish()
        assert bytes(server.calls[0].audio) == NOISE[:300_000]


async def test_a_stream_that_ends_in_the_turn_in_which_the_backlog_fills_does_not_hold_who_sends() -> None:
    async def script(call: Call) -> None:
        await call.ready()
        await call.gone()

    async def send(stream: Transcription) -> None:
        async with stream, asyncio.timeout(5):
            asyncio.get_running_loop().call_soon(stream._end)  # in the turn that it gives before it waits for room
            await stream.send(NOISE[:300_000])

    async with serving(talk(script)) as server:
        with pytest.raises(Misused, match="not open"):
            await send(opened(server.url, options=PHONE, backlog_s=30))


async def test_sound_without_a_pause_does_not_stop_the_stream() -> None:
    """No ack can move in it; its stored finals make room, and a resume before them gets silence instead."""

    async def first(call: Call) -> None:
        await call.ready()
        await call.say("speech_started", channel=0, utterance=0, at_ms=0)
        await call.hear(240_000)
        await call.final(0, "la la", stop_ms=20_000, endpoint=False, cause="length")
        await call.hear(300_000)
        call.cut()

    async def second(call: Call) -> None:
        await call.ready(resume_at=0, channels=[{"channel": 0, "kept_to": 160_000, "next_segment": 1}])
        await call.end()

    async with serving(talk(first), talk(second)) as server, opened(server.url, options=PHONE, backlog_s=30) as stream:
        await stream.send(NOISE[:300_000])
        await stream.finish()
        again = bytes(server.calls[1].audio)
    assert len(again) == 300_000
    assert again[:120_000] == b"\xff" * 120_000
    assert again[120_000:] == NOISE[120_000:300_000]


async def test_a_server_that_stops_reading_holds_the_speaker_and_loses_nothing() -> None:
    go = asyncio.Event()
    audio = random.Random(1).randbytes(12_000_000)
    options = Options(sample_rate=192_000)

    async def script(call: Call) -> None:
        await call.ready()
        await go.wait()
        await call.hear(5_000_000)
        await call.say("ack", samples=2_500_000)
        await call.end()

    async with serving(talk(script)) as server, opened(server.url, options=options, backlog_s=30) as stream:
        sending = asyncio.create_task(stream.send(audio))
        await turns(3_000)
        assert not sending.done()
        go.set()
        await stream_end(stream, sending)
        assert bytes(server.calls[0].audio) == audio


async def stream_end(stream: Transcription, sending: asyncio.Task[None]) -> None:
    await sending
    await stream.finish()


async def test_a_silent_server_is_left_without_a_close_frame_and_resumed() -> None:
    async def first(call: Call) -> None:
        await call.ready()
        call.ws._autoping = False  # it does not even answer pings
        await call.gone()

    time = HandTime()
    async with serving(talk(first), talk(everything)) as server, opened(server.url, time) as stream:
        await stream.send(NOISE)
        await until(lambda: bool(server.calls) and len(server.calls[0].audio) == len(NOISE))
        await time.tick(7)
        assert len(server.requests) == 1
        await time.tick(1)
        await stream.finish()
        assert bytes(server.calls[1].audio) == NOISE
        assert server.calls[0].left_with is None


async def test_a_line_that_breaks_before_a_ping_is_answered_is_a_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, broken = aiohttp.ClientWebSocketResponse.pong, []

    async def first(call: Call) -> None:
        await call.ready()
        await call.ws.ping()
        await call.gone()

    async def too_late(ws: aiohttp.ClientWebSocketResponse, message: bytes = b"") -> None:
        ws.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        ws._writer.transport.abort()
        broken.append(ws)
        await answer(ws, message)

    monkeypatch.setattr(aiohttp.ClientWebSocketResponse, "pong", too_late)
    async with serving(talk(first), talk(everything)) as server, opened(server.url, HandTime()) as stream:
        await stream.send(NOISE)
        await until(lambda: bool(broken))
        await stream.finish()
        assert bytes(server.calls[1].audio) == NOISE


async def test_an_idle_stream_is_kept_alive_and_a_pong_is_a_sign_of_life() -> None:
    kept: list[str] = []

    async def script(call: Call) -> None:
        await call.ready()
        while (command := await call.command()) == "keepalive":
            kept.append(command)
        await call.say("closed", cause="finish")
        await call.ws.close(code=1000)

    time = HandTime()
    async with serving(talk(script)) as server, opened(server.url, time) as stream:
        for count in range(1, 5):
            await time.tick(4)
            await until(lambda count=count: len(kept) == count)  # type: ignore[misc]
            await settled(stream, time)
        await stream.finish()
        assert len(server.requests) == 1
    assert kept == ["keepalive"] * 4


async def test_a_reader_that_was_away_is_not_the_servers_silence() -> None:
    async def script(call: Call) -> None:
        await call.ready()
        for n in range(2):
            await call.final(n, str(n))
        while await call.command() == "keepalive":
            pass
        await call.say("closed", cause="finish")
        await call.ws.close(code=1000)

    time = HandTime()
    async with serving(talk(script)) as server:
        stream = opened(server.url, time)
        stream._inbox = Inbox(most=2)
        async with stream:
            await until(lambda: len(stream._inbox) == 2)
            await time.tick(20)
            reading = asyncio.create_task(collect(stream))
            await until(lambda: stream._link is not None and stream._link.waiting)
            await time.tick(1)
            await stream.finish()
        assert finals_of(await reading) == ["0", "1"]
        assert len(server.requests) == 1


async def settled(stream: Transcription, time: HandTime) -> None:
    """Until the pong is here."""
    await until(lambda: stream._link is not None and time.now() - stream._link.heard_at < QUIET_S)


async def test_goaway_is_followed_when_its_time_is_over() -> None:
    async def first(call: Call) -> None:
        await call.ready()
        await call.say("goaway", within_ms=12_000)
        await call.gone()

    time = HandTime()
    async with serving(talk(first), talk(everything)) as server, opened(server.url, time) as stream:
        await stream.send(NOISE)
        await until(lambda: stream._link is not None and stream._link.leave_at is not None)
        await time.tick(2)
        assert len(server.requests) == 1
        await time.tick(1)
        await stream.finish()
        assert bytes(server.calls[1].audio) == NOISE
        assert server.calls[0].left_with is None


async def test_messages_are_spread_below_the_servers_limit() -> None:
    async def script(call: Call) -> None:
        await call.ready(limits={"messages_per_s": 4})
        await call.end()

    time = HandTime()
    async with serving(talk(script)) as server, opened(server.url, time) as stream:
        await stream.send(NOISE[:150_000])
        await stream.finish()
        assert bytes(server.calls[0].audio) == NOISE[:150_000]
    # Five pieces of audio and a command, two a second.
    assert len(time.pauses) >= 2
    assert all(0.0 < pause <= 1.0 for pause in time.pauses)
