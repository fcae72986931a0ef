"""The load benchmark in small: its guards hold on the real server, and each of them can fail."""

from __future__ import annotations

import json

import pytest

from benchmarks import load
from benchmarks.crowd import Speaker
from benchmarks.figures import spread
from benchmarks.null import NullEngine, account
from benchmarks.served import speech_file
from benchmarks.sides import Kind
from benchmarks.tape import FRAME_BYTES, FRAMES, make_tape, number_of

TINY = load.Plan(sessions=2, seconds=2.0, pairs=1, warm_frames=10, flood_frames=200, pinned=False)


@pytest.fixture(scope="module")
def tape() -> bytes:
    return make_tape(speech_file(), 0.5)


def frames(tape: bytes, first: int, count: int) -> bytes:
    return tape[first * FRAME_BYTES : (first + count) * FRAME_BYTES]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "flooded"), [("null", False), ("talking", False), ("null", True)])
async def test_nothing_is_lost_or_reordered(kind: Kind, flooded: bool, tape: bytes) -> None:
    row = await load.row("tiny", kind, TINY, tape, flooded=flooded)
    assert load.broken([row]) == []
    assert row.ours.said["final"] > 0
    assert 0.0 < row.ours.speech_share <= 1.0
    assert len(row.ours.us_per_frame) == len(row.bare.us_per_frame) == 1
    assert (row.ours.said.get("partial", 0) > 0) is (kind == "talking")
    assert load.shown([row])
    assert load.verdict(load.Plan(shares=(0.5,)), [row])
    assert json.dumps(row.figures())


def test_every_frame_of_a_tape_carries_its_number(tape: bytes) -> None:
    assert [number_of(frames(tape, n, 1)) for n in range(FRAMES)] == list(range(FRAMES))


async def test_the_engine_tells_which_frames_it_heard(tape: bytes) -> None:
    listener = NullEngine(tape, talks=False).listen(language=None)
    await listener.hear(frames(tape, FRAMES - 2, 2), final=False)
    last = await listener.hear(frames(tape, 0, 3), final=True)
    assert [word.text for word in last.words] == [account(FRAMES - 2, 5)]


@pytest.mark.parametrize("order", [(7, 9), (8, 7), (7, 7)], ids=["lost", "exchanged", "doubled"])
async def test_the_engine_notices_wrong_frames(tape: bytes, order: tuple[int, int]) -> None:
    listener = NullEngine(tape, talks=False).listen(language=None)
    heard = await listener.hear(b"".join(frames(tape, n, 1) for n in order), final=True)
    assert [word.text for word in heard.words] == ["broken"]


FINAL = {"type": "final", "segment": 0, "start_ms": 40, "stop_ms": 200, "text": account(12, 8)}
CLOSED = {"type": "closed", "audio_ms": 0, "finals": 1}


async def complaints(*messages: dict[str, object]) -> list[str]:
    """Of a speaker who began with frame 10 and sent nothing yet."""
    speaker = Speaker(0, [b""] * FRAMES, 10, checked=True)
    speaker.data_received(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    for message in messages:
        text = json.dumps(message).encode()
        speaker.data_received(bytes((0x81, 126)) + len(text).to_bytes(2, "big") + text)
    return speaker.broken


async def test_a_speaker_is_content_with_what_it_sent() -> None:
    assert await complaints(FINAL, CLOSED) == []


@pytest.mark.parametrize(
    "messages",
    [
        (FINAL | {"text": account(13, 8)}, CLOSED),
        (FINAL | {"text": "broken"}, CLOSED),
        (FINAL | {"segment": 1}, CLOSED),
        (FINAL, FINAL, CLOSED),
        (FINAL, CLOSED | {"audio_ms": 20}),
        (FINAL, CLOSED | {"finals": 2}),
        (FINAL, {"type": "warning", "message": "x"}, CLOSED),
    ],
    ids=["shifted", "broken", "skipped", "doubled", "audio", "unsaid", "warned"],
)
async def test_a_speaker_complains(messages: tuple[dict[str, object], ...]) -> None:
    assert await complaints(*messages)


def test_percentiles_are_values_that_were_measured() -> None:
    told = spread([float(n) for n in range(200)])
    assert (told.p50, told.p95, told.p99, told.max, told.count) == (100.0, 190.0, 198.0, 199.0, 200)
    assert spread([]).cells() == ("-",) * 4
