"""The upward half without a network: whatever is cut and acknowledged, what was sent makes up what was given."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsrv.client.backlog import BLOCK_BYTES, Backlog
from streamsrv.client.messages import Ack, Ready, SpeechStarted
from streamsrv.client.refusals import AudioForgotten
from streamsrv.client.supply import MOST_FLUSHES, Supply
from streamsrv.commands import Options

NOISE = random.Random(3).randbytes(100_000)
PHONE = Options(encoding="alaw", sample_rate=8_000)


def ready(resume_at: int) -> Ready:
    return Ready(resume_token="t", resume_at=resume_at)


def drain(supply: Supply, most: int) -> bytes:
    sent = bytearray()
    while isinstance(data := supply.take(most), bytes):
        sent += data
    assert data is None
    return bytes(sent)


@given(
    st.lists(st.binary(min_size=1, max_size=3 * BLOCK_BYTES), max_size=8),
    st.integers(1, 4 * BLOCK_BYTES),
    st.data(),
)
def test_the_backlog_is_a_window_over_what_was_given(pieces: list[bytes], capacity: int, data: st.DataObject) -> None:
    backlog, whole = Backlog(capacity, "mulaw"), b""
    for piece in pieces:
        taken = backlog.append(memoryview(piece))
        assert taken == min(len(piece), capacity - (len(whole) - backlog.start))
        whole += piece[:taken]
        assert backlog.stop == len(whole)
        place = data.draw(st.integers(0, len(whole)))
        freed = backlog.forget(place)
        assert freed >= 0
        begin = data.draw(st.integers(0, len(whole)))
        got = backlog.read(begin, 1_000)
        expected = bytearray(whole)
        expected[: backlog.start] = b"\xff" * backlog.start
        assert bytes(expected[begin : begin + len(got)]) == got
        assert got or begin == len(whole)


def test_memory_is_given_back() -> None:
    backlog = Backlog(100 * BLOCK_BYTES)
    for _ in range(50):
        backlog.append(memoryview(bytes(BLOCK_BYTES)))
    backlog.forget(40 * BLOCK_BYTES + 5)
    assert len(backlog._blocks) == 10


@given(st.integers(1, 30_000), st.lists(st.tuples(st.integers(0, 90_000), st.integers(0, 100_000)), max_size=4))
def test_resumes_make_the_stream_whole(most: int, cuts: list[tuple[int, int]]) -> None:
    supply, server, acked = Supply(PHONE, 120.0), bytearray(), 0
    supply.append(memoryview(NOISE))
    supply.begin(ready(0))
    for ack, arrived in cuts:
        server += drain(supply, most)[:arrived]  # the rest was lost on its way
        acked = max(acked, min(ack, len(server)))
        supply.acknowledge(Ack(samples=acked))
        supply.forget()
        resume_at = max(0, acked - 4_800)
        del server[resume_at:]
        supply.begin(ready(resume_at))
    server += drain(supply, most)
    assert bytes(server) == NOISE


def test_acks_trim_all_but_a_second() -> None:
    supply = Supply(PHONE, 30.0)
    supply.append(memoryview(bytes(80_000)))
    supply.begin(ready(0))
    assert supply.acknowledge(Ack(samples=40_000))
    assert supply.forget()
    assert not supply.forget()
    assert supply.unacknowledged_s == 5.0
    supply.begin(ready(32_000))
    with pytest.raises(AudioForgotten, match="31999; samples 32000 to 80000"):
        supply.begin(ready(31_999))
    with pytest.raises(AudioForgotten):
        supply.begin(ready(80_001))


def test_an_old_ack_moves_nothing() -> None:
    supply = Supply(PHONE, 30.0)
    supply.append(memoryview(bytes(80_000)))
    assert supply.acknowledge(Ack(samples=40_000))
    assert not supply.acknowledge(Ack(samples=40_000))
    assert not supply.acknowledge(Ack(samples=8_000))
    assert supply.unacknowledged_s == 5.0


def test_speech_alone_makes_no_room() -> None:
    supply = Supply(PHONE, 30.0)
    assert supply.append(memoryview(bytes(300_000))) == 240_000
    supply.begin(ready(0))
    supply.note(SpeechStarted(at_ms=500))
    assert not supply.forget()


def test_flushes_are_bounded() -> None:
    supply = Supply(PHONE, 30.0)
    assert all(supply.flush() for _ in range(MOST_FLUSHES))
    assert not supply.flush()
    supply.begin(ready(0))
    assert supply.take(1) == "flush"
    supply.acknowledge(Ack(samples=0, flushed=True))
    assert supply.flush()


def test_finish_comes_last_and_on_every_connection_once() -> None:
    supply = Supply(PHONE, 30.0)
    supply.append(memoryview(b"123"))
    supply.finishing = True
    for _ in range(2):
        supply.begin(ready(0))
        assert [supply.take(2), supply.take(2), supply.take(2), supply.take(2)] == [b"12", b"3", "finish", None]
