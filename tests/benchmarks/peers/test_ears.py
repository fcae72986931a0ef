"""What each server's messages promise, on conversations as the servers have them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.peers.ears import Ear, Naive, Refused, Streamsrv, WhisperLive, WhisperLiveKit


def committed(ear: Ear, *messages: dict[str, Any]) -> list[list[str] | None]:
    """What counts as committed after each message."""
    return [None if words is None else list(words) for words in map(ear.hear, messages)]


# --- streamsrv -----------------------------------------------------------------------------------------------------


def test_of_our_partials_only_the_stable_part_counts() -> None:
    partial = {"type": "partial", "segment": 0, "text": "one two three", "stable_chars": 7}
    final = {"type": "final", "segment": 0, "text": "one two three"}
    after = {"type": "partial", "segment": 1, "text": "four five", "stable_chars": 4}
    assert committed(Streamsrv(1), {"type": "ready"}, partial, final, after) == [
        None,
        ["one", "two"],
        ["one", "two", "three"],
        ["one", "two", "three", "four"],
    ]


def test_segments_are_put_in_order_whoever_is_first() -> None:
    late = {"type": "final", "segment": 0, "text": "one"}
    early = {"type": "partial", "segment": 1, "text": "two", "stable_chars": 3}
    assert committed(Streamsrv(1), early, late)[-1] == ["one", "two"]


def test_we_are_ready_and_over_when_we_say_so() -> None:
    ear = Streamsrv(7)
    assert ear.path == "/transcription/stream/race-7?sample_rate=16000"
    assert ear.ready({"type": "ready"})
    assert not ear.ready({"type": "speech_started"})
    assert ear.over({"type": "closed"})
    assert not ear.over({"type": "final"})


# --- WhisperLive ---------------------------------------------------------------------------------------------------


def segments(*told: tuple[str, bool]) -> dict[str, Any]:
    """An update, as ``format_segment`` writes it."""
    parts = [{"start": "0.000", "end": "1.000", "text": text, "completed": completed} for text, completed in told]
    return {"uid": "race-1", "segments": parts}


def test_whisperlive_has_committed_what_two_updates_agree_on() -> None:
    ear = WhisperLive(1)
    told = committed(ear, segments((" one too", False)), segments((" one two", False)), segments((" one two", False)))
    assert told == [[], ["one"], ["one", "two"]]


def test_what_whisperlive_calls_completed_needs_no_second_update() -> None:
    assert committed(WhisperLive(1), segments((" one two", True), (" three", False))) == [["one", "two"]]


def test_an_update_of_whisperlive_that_says_less_takes_nothing_back() -> None:
    ear = WhisperLive(1)
    long, short = segments((" one two three", False)), segments((" one", False))
    assert committed(ear, long, long, short, long) == [[], *[["one", "two", "three"]] * 3]


def test_an_update_of_whisperlive_that_says_otherwise_twice_does() -> None:
    ear = WhisperLive(1)
    one, other = segments((" one two", False)), segments((" one ten", False))
    assert committed(ear, one, one, other, other) == [[], ["one", "two"], ["one", "two"], ["one", "ten"]]


def test_whisperlive_is_asked_in_its_own_words() -> None:
    ear = WhisperLive(3, use_vad=False)
    asked = json.loads(ear.opening)
    assert (asked["uid"], asked["use_vad"], asked["audio_format"], asked["language"]) == (
        "race-3",
        False,
        "int16",
        "en",
    )
    assert ear.ending == b"END_OF_AUDIO"
    assert ear.ready({"uid": "race-3", "message": "SERVER_READY", "backend": "faster_whisper"})
    assert not ear.ready({"uid": "race-3", "language": "en", "language_prob": 1.0})
    assert ear.over({"uid": "race-3", "message": "DISCONNECT"})


@pytest.mark.parametrize("status", ["WAIT", "ERROR"])
def test_whisperlive_may_refuse(status: str) -> None:
    with pytest.raises(Refused, match=status):
        WhisperLive(1).ready({"uid": "race-1", "status": status, "message": 0.2})


# --- WhisperLiveKit ------------------------------------------------------------------------------------------------


def lines(*texts: str | None, buffer: str = "") -> dict[str, Any]:
    """A snapshot of mode ``full``; a silence is a line without text."""
    told = [{"speaker": 1, "text": text, "start": "0:00:00.00", "end": "0:00:01.00"} for text in texts]
    return {"status": "active_transcription", "lines": told, "buffer_transcription": buffer}


def test_whisperlivekit_has_committed_its_lines_and_not_its_buffer() -> None:
    ear = WhisperLiveKit(1)
    told = committed(ear, lines(buffer=" one"), lines(" one", buffer=" two"), lines(" one two", None, " three"))
    assert told == [[], ["one"], ["one", "two", "three"]]


def test_whisperlivekit_tells_its_beginning_and_its_end() -> None:
    ear = WhisperLiveKit(1)
    assert ear.ready({"type": "config", "useAudioWorklet": True})
    assert ear.over({"type": "ready_to_stop"})
    assert ear.hear({"type": "ready_to_stop"}) is None
    assert ear.ending == b""


# --- the naive server ----------------------------------------------------------------------------------------------


def test_the_naive_server_says_it_outright() -> None:
    ear = Naive(1)
    assert ear.ready({"ready": True})
    assert committed(ear, {"ready": True}, {"committed": "one two"}) == [None, ["one", "two"]]
    assert ear.over({"closed": True})
