"""The latency benchmark in small: its guards hold on the real server, each can fail, and its clock is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import soundfile

from benchmarks import latency
from benchmarks.judging import Judged, edits, judge, violations
from benchmarks.listening import Arrival, Heard
from benchmarks.script import Script, Spoken, constructed, recordings
from benchmarks.served import speech_file


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Two seconds of speech."""
    sound, rate = soundfile.read(speech_file(), dtype="int16")
    soundfile.write(tmp_path / "short.wav", sound[: 2 * rate], rate)
    return tmp_path / "short.wav"


@pytest.mark.slow
@pytest.mark.speech
async def test_two_sessions_on_the_real_engine(recording: Path) -> None:
    plan = latency.Plan(engine="sphinx", sessions=2, repeat=1, audio=recording)
    pool = (await latency.measure(plan, constructed_too=False))["recorded"]
    assert pool.broken == []
    assert pool.words > 0
    assert len(pool.flush) == 2


@pytest.mark.slow
def test_the_command(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--engine", "null", "--sessions", "2", "--repeat", "1", "--audio", str(recording), "--dry"]
    assert latency.main(asked) == 0
    told = capsys.readouterr().out
    assert "guards held" in told
    assert "word -> stable" in told


# --- the judge, on a conversation written by hand --------------------------------------------------------------------

SCRIPT = Script(
    name="two words",
    rate_hz=16_000,
    samples=bytes(2 * 16_000 * 2),
    plain_ms=2_000,
    truth=(Spoken(text="one", stop_ms=500), Spoken(text="two", stop_ms=900)),
)


def partial(at_ms: float, text: str, stable: int, segment: int = 0) -> Arrival:
    message = {"type": "partial", "segment": segment, "utterance": segment, "text": text, "stable_chars": stable}
    return Arrival(at_ms=at_ms, message=message)


def final(at_ms: float, text: str, segment: int = 0, **other: Any) -> Arrival:
    message = {"type": "final", "segment": segment, "utterance": segment, "text": text, "cause": "vad"}
    return Arrival(at_ms=at_ms, message=message | {"start_ms": 200, "stop_ms": 1_300} | other)


STOPPED = Arrival(at_ms=1_310.0, message={"type": "speech_stopped", "utterance": 0})
CLOSED = Arrival(at_ms=2_100.0, message={"type": "closed", "finals": 1, "audio_ms": 2_000})
TALK = [
    partial(560.0, "won", 0),
    partial(660.0, "one", 0),
    partial(760.0, "one", 3),
    partial(960.0, "one two", 3),
    STOPPED,
    final(1_350.0, "one two"),
    CLOSED,
]


def heard(arrivals: list[Arrival]) -> Heard:
    return Heard(script=SCRIPT, arrivals=arrivals, flush_ms=2_000.0, late_ms=[0.0])


def test_latencies_count_from_the_words_ends() -> None:
    judged = judge(heard(TALK))
    assert judged.first_partial == [160.0, 60.0]
    assert judged.commit == [260.0, 450.0]  # "two" became sure with the final only
    assert (judged.final, judged.endpoint, judged.finalise) == ([450.0], [410.0], [40.0])
    assert (judged.words, judged.stable, judged.withdrawn) == (2, 1, 1)
    assert (judged.truth, judged.matched) == (2, 2)
    assert judged.broken == []


def test_a_flush_counts_from_when_it_was_meant_to_be_sent() -> None:
    judged = judge(heard([*TALK[:4], final(2_030.0, "one two", cause="flush"), CLOSED]))
    assert (judged.flush, judged.final) == ([30.0], [])


def test_the_part_that_is_cut_off_is_no_error_though_its_segment_begins_in_the_pause_before_it() -> None:
    script = msgspec.structs.replace(SCRIPT, text="one two", plain_ms=1_500)
    flushed = final(2_030.0, "one", segment=1, cause="flush", start_ms=1_400, stop_ms=2_000)
    told = Heard(script=script, arrivals=[*TALK[:-1], flushed, CLOSED], flush_ms=2_000.0, late_ms=[0.0])
    assert (judge(told).written, judge(told).errors) == (2, 0)


@pytest.mark.parametrize(
    "arrivals",
    [
        [partial(760.0, "one", 3), partial(860.0, "won two", 0), final(1_350.0, "one two"), CLOSED],
        [partial(760.0, "one", 3), final(1_350.0, "won two"), CLOSED],
        [*TALK[:-1], final(1_400.0, "one two"), CLOSED],
        [*TALK[:-1], partial(1_400.0, "one two", 7), CLOSED],
        [*TALK[:-1], partial(1_900.0, "three", 0, segment=1), CLOSED],
        [final(1_350.0, "one two", segment=1), CLOSED],
        TALK[:-1],
        [*TALK[:-1], Arrival(at_ms=2_100.0, message=CLOSED.message | {"audio_ms": 1_980})],
        [*TALK[:-1], Arrival(at_ms=2_100.0, message=CLOSED.message | {"finals": 2})],
        [*TALK, Arrival(at_ms=2_100.0, message={"type": "error", "code": "x"})],
    ],
    ids=["partial", "final", "twice", "after", "no final", "skipped", "unclosed", "audio", "unsaid", "error"],
)
def test_what_must_never_happen_is_told(arrivals: list[Arrival]) -> None:
    assert list(violations(heard(arrivals)))


def test_pools_add_up() -> None:
    pool = Judged()
    for _ in range(2):
        pool.add(judge(heard(TALK)))
    assert (len(pool.commit), pool.words) == (4, 4)
    assert Judged().commit == []


def test_edits() -> None:
    assert [edits(["a", "b", "c"], said.split()) for said in ("a b c", "a c", "a x c d", "")] == [0, 1, 2, 3]


# --- scripts ---------------------------------------------------------------------------------------------------------


def test_constructed_words_lie_in_their_order_inside_the_audio() -> None:
    script = constructed(speech_file())
    stops = [word.stop_ms for word in script.truth]
    assert stops == sorted(stops)
    assert stops[-1] == script.duration_ms  # flushed at the very end of a word
    assert 0 < script.plain_ms < stops[-1]


def test_recordings_come_with_their_texts() -> None:
    (script,) = recordings(speech_file())
    assert script.text.split()[:2] == ["and", "so"]
    assert script.duration_ms == script.plain_ms + 2_000
    with pytest.raises(FileNotFoundError):
        recordings(speech_file().parent / "nothing here")
