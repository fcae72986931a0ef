"""Turns: first come first served, nobody twice at work, news of those at work is not lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsrv.runtime.handoff import book as module
from streamsrv.runtime.handoff.book import Book


def test_first_come_first_served_and_once() -> None:
    book = Book()
    for name in ("b", "a", "b"):
        book.heard(name)
    assert [book.take(0), book.take(0), book.take(0)] == ["b", "a", None]


def test_news_of_one_at_work_brings_another_turn() -> None:
    book = Book()
    book.heard("a")
    book.take(0)
    book.found(["a"])  # a look into the store sees what is under way
    book.done("a", more=False)
    assert book.take(0) is None
    book.heard("a")
    book.take(0)
    book.heard("a")
    book.done("a", more=False)
    assert book.take(0) == "a"


def test_one_with_more_goes_to_the_back() -> None:
    book = Book()
    book.heard("a")
    book.heard("b")
    book.take(0)
    book.done("a", more=True)
    assert [book.take(0), book.take(0)] == ["b", "a"]


def test_a_rest_is_not_cut_short_by_news() -> None:
    book = Book()
    book.heard("a")
    book.take(0)
    book.rest("a", until=5.0)
    book.heard("a")
    book.found(["a"])
    assert book.take(4.9) is None
    assert book.wakes_at() == 5.0
    assert book.take(5.0) == "a"
    assert book.wakes_at() is None


def test_failures_are_counted_until_a_turn_ends_well() -> None:
    book = Book()
    book.heard("a")
    for count in (1, 2, 3):
        assert book.take(9.0) == "a"
        assert book.failed("a") == count
        book.rest("a", until=1.0)
    book.take(9.0)
    book.done("a", more=True)
    book.take(9.0)
    assert book.failed("a") == 1


def test_all_are_roused_when_the_sink_is_back() -> None:
    book = Book()
    for name in "abc":
        book.heard(name)
        book.take(0)
        book.failed(name)
        book.rest(name, until=1e9)
    book.rouse_all()
    assert [book.take(0) for _ in range(4)] == ["a", "b", "c", None]
    assert book.failed("a") == 1


def test_everything_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_READY", 3)
    monkeypatch.setattr(module, "MAX_RESTING", 2)
    book = Book()
    for number in range(9):
        book.heard(f"i{number}")
    assert book.ready == 3
    for _ in range(3):
        name = book.take(0)
        assert name is not None
        book.failed(name)
        book.rest(name, until=5)
    assert len(book._resting) == len(book._failures) == 2


STEPS = st.lists(st.tuples(st.sampled_from("hfdmrRt"), st.sampled_from("abc")), max_size=80)


@given(STEPS)
def test_nobody_is_at_work_twice_and_nobody_is_lost(steps: list[tuple[str, str]]) -> None:
    """Whoever was heard of since its last turn began is ready, at work with news, or rests."""
    book = Book()
    now = 0.0
    working: set[str] = set()
    owed: set[str] = set()
    for step, name in steps:
        now += 1
        if step == "h":
            book.heard(name)
            owed.add(name)
        elif step == "f":
            book.found([name])
        elif step == "t" and (taken := book.take(now)) is not None:
            assert taken not in working
            working.add(taken)
            owed.discard(taken)
        elif name in working and step in "dmr":
            working.discard(name)
            if step == "r":
                book.rest(name, until=now + 3)
                owed.add(name)
            else:
                book.done(name, more=step == "m")
        elif step == "R":
            book.rouse_all()
    for name in tuple(working):
        book.done(name, more=False)
    left = set()
    while (turn := book.take(now + 99)) is not None:
        left.add(turn)
    assert owed <= left
