"""The search against curves of latency that are known."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.peers.judging import Window
from benchmarks.peers.search import Search

LIMITS = (1.5, 3.0, 4.0, 6.0, 10.0)


def seen(sessions: int, p95_s: float, *, lost: int = 0, broken: tuple[str, ...] = ()) -> Window:
    return Window(
        sessions=sessions,
        words=100,
        p50_s=p95_s / 2,
        p95_s=p95_s,
        growth=0.0,
        lost=lost,
        errors=0,
        said=100,
        taken_back=0,
        late_ms=1.0,
        broken=list(broken),
    )


def searched(curve: Callable[[int], Window], **options: int) -> Search:
    search = Search(LIMITS, **options)
    while (number := search.next()) is not None:
        search.saw(curve(number))
    return search


def test_one_speaker_comes_first() -> None:
    search = Search(LIMITS, first=8)
    assert search.next() == 1
    search.saw(seen(1, 0.5))
    assert search.next() == 8


@pytest.mark.parametrize("bears", [1, 2, 3, 5, 9])
def test_small_numbers_are_found_exactly(bears: int) -> None:
    search = searched(lambda n: seen(n, 1.0 if n <= bears else 50.0), most=20)
    assert [search.held(limit) for limit in LIMITS] == [bears] * 5


def test_each_limit_has_its_own_number() -> None:
    search = searched(lambda n: seen(n, float(n)), most=30)
    assert [search.held(limit) for limit in LIMITS] == [1, 3, 4, 6, 10]
    assert search.first_limit == 1.5


@pytest.mark.parametrize("bears", [17, 40, 100])
def test_large_numbers_are_found_to_a_tenth(bears: int) -> None:
    search = searched(lambda n: seen(n, 1.0 if n <= bears else 50.0), most=30, first=8)
    assert 0.9 * bears - 1 <= search.held(1.5) <= bears


def test_who_holds_nobody_is_asked_once() -> None:
    search = searched(lambda n: seen(n, 11.0))
    assert len(search.windows) == 1
    assert search.first_limit is None
    assert search.held(10.0) == 0


def test_the_limit_in_focus_is_looked_at_first() -> None:
    search = Search(LIMITS, first=8)
    search.focus = 3.0
    for number, p95_s in ((1, 0.5), (8, 2.0), (16, 4.0)):
        assert search.next() == number
        search.saw(seen(number, p95_s))
    assert search.next() == 12


def test_the_number_of_windows_has_an_end() -> None:
    assert len(searched(lambda n: seen(n, float(n)), most=4).windows) == 4
    assert max(window.sessions for window in searched(lambda n: seen(n, 0.1), largest=50).windows) == 50


def test_a_number_that_fails_when_looked_at_again_is_not_held() -> None:
    search = searched(lambda n: seen(n, 1.0 if n <= 4 else 50.0), most=20)
    assert search.held(1.5) == 4
    search.saw(seen(4, 2.0))
    assert search.held(1.5) == 2
    assert search.held(3.0) == 4


def test_words_a_server_loses_by_nature_are_forgiven_and_no_others() -> None:
    search = Search(LIMITS)
    search.saw(seen(1, 1.0, lost=17))
    search.saw(seen(2, 1.0, lost=21))
    search.saw(seen(4, 1.0, lost=23))
    assert search.held(1.5) == 2


def test_refused_speakers_are_not_held() -> None:
    search = Search(LIMITS)
    search.saw(seen(1, 1.0))
    search.saw(seen(2, 1.0, broken=("refused: 503",)))
    assert search.held(1.5) == 1
