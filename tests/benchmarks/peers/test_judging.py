"""Latencies, losses and errors of calls written by hand."""

from __future__ import annotations

import math

import pytest

from benchmarks.figures import slope
from benchmarks.peers.calling import Heard, Told
from benchmarks.peers.judging import Window, judge, settled_ms
from benchmarks.peers.speech import Call
from benchmarks.peers.words import align
from benchmarks.script import Spoken


def heard(truth: str, *told: tuple[float, str], at_ms: int = 0, broken: str = "") -> Heard:
    """A call whose words end each half second."""
    words = tuple(Spoken(text=word, stop_ms=500 * (n + 1)) for n, word in enumerate(truth.split()))
    call = Call(at_ms=at_ms, samples=bytes(32 * 500 * len(words)), truth=words)
    states = [Told(at_ms=when, words=text.split()) for when, text in told]
    return Heard(call=call, told=states, late_ms=3.0, broken=broken)


def window(*calls: Heard, to_ms: float = math.inf) -> Window:
    return judge([[call] for call in calls], from_ms=0, to_ms=to_ms)


def test_a_word_counts_from_its_end_to_when_it_stays() -> None:
    judged = window(heard("one two", (900, "one"), (1_600, "one two")))
    assert (judged.p50_s, judged.p95_s) == (0.6, 0.6)
    assert (judged.words, judged.lost, judged.errors, judged.taken_back) == (2, 0, 0, 0)


def test_a_word_taken_back_counts_from_when_it_came_to_stay() -> None:
    told = [Told(at_ms=1, words=["a"]), Told(at_ms=2, words=["a", "b"]), Told(at_ms=3, words=["a", "c"])]
    told += [Told(at_ms=4, words=["a", "b"])]
    assert settled_ms(told) == [1, 4]
    assert window(heard("one two", (600, "one"), (900, "one won"), (1_200, "one two"))).taken_back == 1


def test_a_wrong_word_has_a_latency_and_is_an_error() -> None:
    judged = window(heard("one two three", (700, "one"), (1_700, "one too three")))
    assert judged.errors == 1
    assert judged.lost == 0
    assert judged.p95_s == 0.7


def test_a_word_never_said_is_lost_and_has_no_latency() -> None:
    judged = window(heard("one two three four", (700, "one"), (2_200, "one two four")))
    assert (judged.lost, judged.words, judged.errors) == (1, 4, 1)
    assert judged.lost_share == 0.25
    assert math.isfinite(judged.p95_s)


def test_nothing_heard_is_no_latency_of_zero() -> None:
    judged = window(heard("one two"))
    assert math.isinf(judged.p95_s)
    assert not judged.holds(10.0)


def test_only_words_of_the_judged_time_count() -> None:
    judged = window(heard("one two three", (2_000, "one two three"), at_ms=5_000), to_ms=6_001)
    assert judged.words == 2
    assert judged.said == 3


def test_who_was_refused_was_not_held() -> None:
    fine = heard("one", (600, "one"))
    assert window(fine).holds(1.5)
    assert not window(fine, heard("one", (600, "one"), broken="refused: 503")).holds(1.5)


def test_a_server_that_falls_behind_holds_nobody() -> None:
    behind = [heard("one", (600 + 200 * n, "one"), at_ms=1_000 * n) for n in range(20)]
    assert window(*behind).growth == pytest.approx(0.2)
    assert not window(*behind).holds(10.0)


def test_the_slope_of_a_line_is_its_slope() -> None:
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert slope([(1, 1)]) == 0
    assert slope([(1, 1), (1, 2)]) == 0


@pytest.mark.parametrize(
    ("truth", "said", "places"),
    [
        ("a b c", "a b c", [0, 1, 2]),
        ("a b c", "a c", [0, None, 1]),
        ("a b c", "a x c", [0, 1, 2]),
        ("a b c", "x a b c", [1, 2, 3]),
        ("a b", "", [None, None]),
        ("", "a", []),
    ],
)
def test_words_find_their_places(truth: str, said: str, places: list[int | None]) -> None:
    assert align(truth.split(), said.split()) == places
