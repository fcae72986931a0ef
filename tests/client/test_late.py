"""A client whose stream ended while it was away, and one that knows several servers."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from streamsrv.client import Closed, Final, Reconnecting, Refused, Transcription, Unreachable
from tests.client.scripted import Call, HandTime, Script, refuse, serving, talk

SECOND = 32_000
"""Bytes."""
BODY = {"channel": 0, "utterance": 0, "segment": 0, "text": "one", "start_ms": 0, "stop_ms": 900, "words": []}


def opened(*urls: str, **more: object) -> Transcription:
    return Transcription(urls, "talk", time=HandTime(), chance=lambda: 1.0, **more)  # type: ignore[arg-type]


def gone(**ended: object) -> Script:
    """The stream has ended; how, the answer says."""

    async def play(_: web.Request) -> web.StreamResponse:
        error = {"code": "stream_ended", "message": "the stream has ended", "retryable": False}
        return web.json_response({"error": error, **({"ended": ended} if ended else {})}, status=410)

    return play


async def heard_and_cut(call: Call) -> None:
    """Takes two seconds and the end, and dies before it says so."""
    await call.ready()
    await call.final(0, "one")
    assert await call.command() == "finish"
    assert len(call.audio) == 2 * SECOND
    call.cut()


async def speak(stream: Transcription) -> tuple[Closed, list[object]]:
    events: list[object] = []

    async def read() -> None:
        try:
            events.extend([event async for event in stream.events()])
        except Refused:
            events.append("refused")

    reading = asyncio.create_task(read())
    try:
        await stream.send(bytes(2 * SECOND))
        return await stream.finish(), events
    finally:
        await reading


async def test_a_socket_that_dies_between_finish_and_closed_is_a_normal_end() -> None:
    finals = [BODY, {**BODY, "segment": 1, "text": "two"}]
    late = gone(samples=32_000, audio_ms=2_000, count=2, finals=finals)
    async with serving(talk(heard_and_cut), late) as server, opened(server.url) as stream:
        closed, events = await speak(stream)
    assert (closed.audio_ms, closed.finals, closed.cause) == (2_000, 2, "finish")
    assert [event.text for event in events if isinstance(event, Final)] == ["one", "two"], "the rest, each once"
    assert events[-1] == closed


@pytest.mark.parametrize(
    "ended",
    [{}, {"samples": None, "count": 1, "finals": [BODY]}, {"samples": 31_000, "count": 1, "finals": [BODY]}],
    ids=["an old server", "not known", "the tail is missing"],
)
async def test_an_end_that_lacks_audio_is_an_error_behind_its_finals(ended: dict[str, object]) -> None:
    async with serving(talk(heard_and_cut), gone(**ended)) as server:
        stream = opened(server.url)
        await stream.__aenter__()
        with pytest.raises(Refused) as caught:
            await speak(stream)
        await stream._leave()
    assert caught.value.status == 410


async def test_an_end_before_finish_is_an_error_even_with_all_audio() -> None:
    async def cut(call: Call) -> None:
        await call.ready()
        await call.hear(SECOND)
        call.cut()

    ended = gone(samples=16_000, audio_ms=1_000, count=0, finals=[])
    async with serving(talk(cut), ended) as server:
        stream = opened(server.url)
        await stream.__aenter__()
        await stream.send(bytes(SECOND))
        with pytest.raises(Refused):
            async for _ in stream.events():
                pass
        await stream._leave()


# --- several servers ------------------------------------------------------------------------------------------------


async def well(call: Call) -> None:
    await call.ready()
    await call.end()


async def leaving(call: Call) -> None:
    """A server that goes away in mid-speech."""
    await call.ready()
    await call.hear(SECOND)
    await call.say("goaway", within_ms=30_000)
    await call.say("error", code="draining", message="going", retryable=True, retry_after_ms=3_000)
    await call.ws.close(code=1012)


async def test_who_is_told_to_go_goes_to_the_next_server_at_once() -> None:
    async with serving(talk(leaving)) as first, serving(talk(well)) as second:
        stream = opened(first.url, second.url)
        async with stream:
            closed, events = await speak(stream)
        (request,) = second.requests
        assert request.query["resume"] == "st-1.token"
        assert bytes(second.calls[0].audio) == bytes(2 * SECOND)
    (pause,) = [event.pause_s for event in events if isinstance(event, Reconnecting)]
    assert pause < 1, "what the first server asks for does not hold for the second"
    assert closed.cause == "finish"


async def test_a_lone_server_is_given_the_time_it_asks_for() -> None:
    async with serving(talk(leaving), talk(well)) as server, opened(server.url) as stream:
        _, events = await speak(stream)
    assert [event.pause_s for event in events if isinstance(event, Reconnecting)] == [3.0]


async def test_a_cut_is_taken_back_to_the_same_server_first_then_to_the_others() -> None:
    async def cut(call: Call) -> None:
        await call.ready()
        await call.hear(SECOND)
        call.cut()

    async with serving(talk(cut), refuse(503, "full", retryable=True)) as first, serving(talk(well)) as second:
        async with opened(first.url, second.url) as stream:
            await speak(stream)
        assert [len(first.requests), len(second.requests)] == [2, 1]


async def test_the_first_connection_tries_each_server_once() -> None:
    dead = "ws://127.0.0.1:9"
    async with serving(talk(well)) as server, opened(dead, dead, server.url) as stream:
        await speak(stream)
    with pytest.raises(Unreachable):
        await opened(dead, dead).__aenter__()
    async with serving(refuse(400, "bad_request")) as first, serving(talk(well)) as second:
        with pytest.raises(Refused):
            await opened(first.url, second.url).__aenter__()
        assert second.requests == [], "what is wrong here is wrong there"


async def test_a_server_that_leaves_before_it_is_ready_is_one_to_come_back_to() -> None:
    async def going(call: Call) -> None:
        await call.ws.close(code=1012)

    async with serving(talk(going), talk(going)) as first, serving(talk(well)) as second:
        with pytest.raises(Refused) as caught:
            await opened(first.url).__aenter__()
        assert (caught.value.status, caught.value.retryable) == (1012, True)
        async with opened(first.url, second.url) as stream:
            await speak(stream)
