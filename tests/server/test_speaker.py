"""The bounded queue of events, its writer and the pulse, on a connection that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import WSMessage, WSMsgType

from streamsrv import events
from streamsrv.commands import AnyCommand
from streamsrv.server import peer
from streamsrv.server import speaker as speaking
from streamsrv.server.speaker import Speaker

BEAT_S = 10.0


class Line:
    """A socket, its transport and a dialect that says an event's own name."""

    binary_bytes = text_bytes = 0
    deaf = None

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.aborted = False
        self.pings = 0

    async def send_str(self, text: str) -> None:
        await self.open.wait()
        if self.aborted:
            raise ConnectionResetError
        self.sent.append(text)

    async def say_bye(self, code: int, reason: bytes) -> None:
        await self.open.wait()
        self.sent.append(f"close {code} {reason.decode()}")

    async def receive(self) -> WSMessage:
        return WSMessage(WSMsgType.CLOSED, None, None)

    async def ping(self) -> None:
        self.pings += 1

    def abort(self) -> None:
        self.aborted = True
        self.open.set()

    def is_closing(self) -> bool:
        return self.aborted

    def hear(self, message: str | bytes, now: float) -> list[AnyCommand]:
        return []

    def say(self, event: events.AnyEvent, now: float) -> list[str | bytes]:
        match event:
            case events.Partial():
                return [f"partial {event.channel}.{event.segment} {event.text}"]
            case events.Warned():
                return [event.code]
        raise ZeroDivisionError("no words for it")


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
async def speaker(line: Line) -> AsyncIterator[Speaker]:
    peer: Any = line
    speaker = Speaker(peer, peer, line, asyncio.get_running_loop())
    yield speaker
    await speaker.done()
    assert speaker._writer.done()


async def rest() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def warned(code: str) -> events.Warned:
    return events.Warned(code=code, message="")


def partial(text: str, *, segment: int = 0, channel: int = 0) -> events.Partial:
    return events.Partial(
        channel=channel, utterance=0, segment=segment, start=0, stop=1, text=text, stable_chars=0, lag_ms=0
    )


async def test_events_are_sent_in_order_and_the_close_after_them(line: Line, speaker: Speaker) -> None:
    speaker.put(warned("a"))
    speaker.put(warned("b"))
    speaker.close(1012, "draining")
    speaker.put(warned("too late"))
    speaker.close(1000, "again")
    await speaker.done()
    assert line.sent == ["a", "b", "close 1012 draining"]
    assert line.aborted, "the connection does not outlive its close"


async def test_a_newer_partial_takes_the_place_of_the_one_that_waits(line: Line, speaker: Speaker) -> None:
    line.open.clear()
    speaker.put(warned("first"))
    await rest()
    for text in ("a", "a b", "a b c"):
        speaker.put(partial(text))
        speaker.put(partial(text, channel=1))
    speaker.put(partial("d", segment=1))
    speaker.put(partial("late", segment=0))
    line.open.set()
    await rest()
    assert line.sent == ["first", "partial 0.0 a b c", "partial 1.0 a b c", "partial 0.1 d", "partial 0.0 late"]


async def test_a_full_queue_cuts_the_peer_and_partials_never_fill_it(line: Line, speaker: Speaker) -> None:
    line.open.clear()
    speaker.put(warned("first"))
    await rest()
    for number in range(10 * speaking.MAX_EVENTS):
        speaker.put(partial(str(number)))
    assert not speaker.closing
    for _ in range(speaking.MAX_EVENTS - 1):
        speaker.put(warned("x"))
    assert not speaker.closing
    speaker.put(warned("one more"))
    assert speaker.closing
    assert line.aborted


async def test_a_peer_that_takes_nothing_is_cut(line: Line, speaker: Speaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speaking, "SEND_WITHIN_S", 0.0)
    line.open.clear()
    speaker.put(warned("a"))
    await rest()
    assert line.aborted
    assert speaker.closing


async def test_a_peer_that_never_ends_the_close_is_cut(
    line: Line, speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "CLOSE_WITHIN_S", 0.0)
    line.open.clear()
    speaker.close(1000, "")
    await rest()
    assert line.aborted


async def test_an_event_without_words_ends_the_connection(line: Line, speaker: Speaker) -> None:
    speaker.put(events.GoAway(within_ms=1))
    await rest()
    assert line.aborted


# --- pulse ----------------------------------------------------------------------------------------------------------


def beat(speaker: Speaker, seconds: float) -> None:
    speaker.pulse(speaker.last_seen + seconds, BEAT_S)


async def test_a_silent_peer_is_pinged_once_then_cut(line: Line, speaker: Speaker) -> None:
    beat(speaker, 9.9)
    await rest()
    assert line.pings == 0
    for seconds in (10.0, 11.0, 14.9):
        beat(speaker, seconds)
        await rest()
    assert line.pings == 1
    assert not line.aborted
    beat(speaker, 15.1)
    assert line.aborted


async def test_a_peer_that_answers_is_pinged_again_later(line: Line, speaker: Speaker) -> None:
    for _ in range(3):
        beat(speaker, 10.5)
        await rest()
        speaker.last_seen += 11.0
        beat(speaker, 1.0)
    assert line.pings == 3
    assert not line.aborted


async def test_a_first_look_after_a_long_stall_pings_before_it_cuts(line: Line, speaker: Speaker) -> None:
    beat(speaker, 1_000.0)
    await rest()
    assert line.pings == 1
    assert not line.aborted


async def test_who_is_held_or_closing_is_not_judged(line: Line, speaker: Speaker) -> None:
    speaker.held = True
    for seconds in range(0, 1_000, 5):
        beat(speaker, seconds)
    speaker.held = False
    line.open.clear()
    speaker.close(1000, "")
    for seconds in range(0, 1_000, 5):
        beat(speaker, seconds)
    await rest()
    assert line.pings == 0
    assert not line.aborted
    line.open.set()
