"""The small parts: pauses, inbox, what was delivered, what the server says, where it is."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from streamsrv.client.address import stream_url
from streamsrv.client.inbox import Inbox
from streamsrv.client.messages import (
    Ack,
    AnyMessage,
    Channel,
    Degraded,
    Final,
    NotUnderstood,
    Partial,
    Ready,
    SpeechStarted,
    Unknown,
    UtteranceEnd,
    decode,
)
from streamsrv.client.pauses import Pauses
from streamsrv.client.progress import MOST_AHEAD, Delivered, Stored
from streamsrv.client.refusals import refused

PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"


def partial(text: str, channel: int = 0) -> Partial:
    return Partial(channel=channel, segment=0, text=text)


def final(segment: int, channel: int = 0, stop_ms: int = 0) -> Final:
    return Final(channel=channel, segment=segment, text="x", stop_ms=stop_ms)


# --- pauses -----------------------------------------------------------------------------------------------------


def test_pauses_double_and_chance_takes_up_to_half() -> None:
    longest, shortest = Pauses(lambda: 1.0), Pauses(lambda: 0.0)
    assert [longest.next_s() for _ in range(8)] == [0.25, 0.5, 1, 2, 4, 8, 8, 8]
    assert [shortest.next_s() for _ in range(3)] == [0.125, 0.25, 0.5]
    assert longest.next_s(at_least_s=30) == 30
    longest.reset()
    assert longest.next_s() == 0.25


# --- inbox ------------------------------------------------------------------------------------------------------


async def test_obsolete_partials_and_acks_give_way_to_newer_ones() -> None:
    inbox = Inbox()
    events: list[AnyMessage] = [partial("a"), Ack(samples=1), partial("b", 1), final(0), partial("c"), Ack(samples=2)]
    for event in [*events, Ack(samples=2, flushed=True), Ack(samples=3)]:
        await inbox.put(event)
    inbox.end(None)
    seen = []
    while (event_ := await inbox.get()) is not None:
        seen.append(event_)
    assert seen == [events[2], events[3], events[4], Ack(samples=2, flushed=True), Ack(samples=3)]


async def test_a_full_inbox_waits_for_its_reader() -> None:
    inbox = Inbox(most=2)
    for n in range(2):
        await inbox.put(final(n))
    third = asyncio.create_task(inbox.put(final(2)))
    await asyncio.sleep(0)
    assert not third.done()
    assert await inbox.get() == final(0)
    await third
    assert len(inbox) == 2


async def test_the_reader_hears_the_error_after_the_last_event() -> None:
    inbox = Inbox()
    await inbox.put(final(0))
    inbox.end(KeyError("x"))
    assert await inbox.get() == final(0)
    with pytest.raises(KeyError):
        await inbox.get()


# --- progress ---------------------------------------------------------------------------------------------------


def test_each_final_is_fresh_once_per_stream_and_channel() -> None:
    delivered = Delivered()
    order = [0, 1, 1, 3, 0, 2, 3, 2, 4]
    assert [delivered.fresh("a", final(n)) for n in order] == [True, True, False, True, False, True, False, False, True]
    assert delivered.fresh("b", final(0))
    assert delivered.fresh("a", final(0, channel=1))
    assert delivered._above["a", 0] == set()


def test_a_final_from_a_spool_is_fresh_again_when_it_became_another() -> None:
    delivered = Delivered()
    spooled = [replace(final(n), durable="spool") for n in range(3)]
    assert all(delivered.fresh("a", one) for one in spooled)
    assert not delivered.fresh("a", spooled[0])
    assert not delivered.fresh("a", final(0)), "the same, stored"
    assert delivered.fresh("a", replace(final(1), text="otherwise"))
    assert not delivered.fresh(
        "a",
        replace(final(1), text="never"),
    ), "a stored one stays"
    assert delivered.fresh("a", replace(final(2), stop_ms=9))


def test_what_is_remembered_is_bounded() -> None:
    delivered = Delivered()
    for n in range(1, MOST_AHEAD + 10):
        assert delivered.fresh("a", final(n))
    assert len(delivered._above["a", 0]) <= MOST_AHEAD
    assert not delivered.fresh("a", final(5))


def test_stored_is_the_least_over_the_channels_that_speak() -> None:
    stored = Stored()
    assert stored.to_ms == 0
    stored.note(SpeechStarted(channel=0, at_ms=100))
    stored.note(final(0, 0, stop_ms=20_000))
    assert stored.to_ms == 20_000
    stored.note(SpeechStarted(channel=1, at_ms=15_000))
    assert stored.to_ms == 15_000
    stored.note(final(0, 1, stop_ms=16_000))
    assert stored.to_ms == 16_000
    stored.note(UtteranceEnd(channel=1))
    assert stored.to_ms == 20_000
    stored.note(Final(segment=1, text="", stop_ms=30_000, durable="spool"))
    assert stored.to_ms == 20_000, "what is only in a spool may be heard again, from this audio"
    stored.note(final(2, 0, stop_ms=40_000))
    assert stored.to_ms == 40_000, "and what is stored behind it says that it came into the store"


# --- messages ---------------------------------------------------------------------------------------------------


def test_every_example_of_the_protocol_is_understood() -> None:
    block = re.search(r"```json server\n(.*?)```", PROTOCOL.read_text("utf-8"), re.DOTALL)
    assert block
    lines = block[1].splitlines()
    events = [decode(line) for line in lines]
    assert len(events) >= 14
    assert not [event for event in events if isinstance(event, Unknown)]
    for event, line in zip(events, lines, strict=True):
        said = json.loads(line)
        known = set(type(event).__struct_fields__) | {"type"}
        assert set(said) <= known, f"the client does not know {set(said) - known} of {said['type']}"


def test_stored_finals_in_ready_need_no_type() -> None:
    event = decode('{"type":"ready","resume_token":"t","finals":[{"segment":0,"text":"a"}],"channels":[{"kept_to":5}]}')
    assert isinstance(event, Ready)
    assert event.finals == (Final(segment=0, text="a"),)
    assert event.channels == (Channel(kept_to=5),)


@pytest.mark.parametrize(
    "text", ["", "[]", "7", "{}", '{"type":7}', '{"type":"final","text":"secret"}', '{"type":"ack","samples":"secret"}']
)
def test_what_is_wrong_is_said_without_repeating_it(text: str) -> None:
    with pytest.raises(NotUnderstood) as caught:
        decode(text)
    assert "secret" not in caught.value.message


def test_degraded_has_its_reason() -> None:
    assert decode('{"type":"degraded","reason":"new kind","active":true}') == Degraded(reason="new kind", active=True)


# --- refusals and addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "retryable", "code"),
    [
        (503, b'{"error":{"code":"full","message":"m","retryable":true}}', True, "full"),
        (503, b"<html>", True, "refused"),
        (502, b"\xff\xfe", True, "refused"),
        (429, b"", True, "refused"),
        (409, b'{"error":{"code":"conflict"}}', False, "conflict"),
        (500, b'{"error":{"code":"x","retryable":false}}', False, "x"),
        (400, b'{"error":null}', False, "refused"),
    ],
)
def test_refusals_of_ours_and_of_others(status: int, body: bytes, retryable: bool, code: str) -> None:
    error = refused(status, body, "Wed, 21 Oct 2026 07:28:00 GMT")
    assert (error.status, error.retryable, error.code, error.retry_after_s) == (status, retryable, code, None)
    assert error.message


@pytest.mark.parametrize(
    ("url", "interview", "whole"),
    [
        ("ws://h:3004", "talk", "ws://h:3004/transcription/stream/talk"),
        ("ws://h:3004/", "talk:1", "ws://h:3004/transcription/stream/talk:1"),
        ("https://h/speech/", "a/../b c", "wss://h/speech/transcription/stream/a%2F..%2Fb%20c"),
        ("http://h?x=1", "ü", "ws://h/transcription/stream/%C3%BC"),
    ],
)
def test_addresses(url: str, interview: str, whole: str) -> None:
    assert str(stream_url(url, interview)) == whole
