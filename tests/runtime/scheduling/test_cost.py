"""What batches cost is learnt from what they took."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsrv.runtime.scheduling.cost import CostBook


@given(a=st.floats(0.0, 1.0), b=st.floats(0.001, 0.5), counts=st.lists(st.integers(1, 32), min_size=5, max_size=60))
def test_the_line_through_exact_batches_is_found(a: float, b: float, counts: list[int]) -> None:
    book = CostBook(32)
    for count in [1, 2, 4, 16, *counts]:
        book.observe(final=False, size_s=5.0, count=count, seconds=a + b * count)
    expected = book.seconds(final=False, size_s=5.0, count=max(counts))
    assert expected == pytest.approx(a + b * max(counts), rel=0.1, abs=1e-6)


def test_nothing_is_known_at_first_and_the_engines_batch_is_believed() -> None:
    book = CostBook(8)
    assert book.seconds(final=False, size_s=5.0, count=1) is None
    assert book.most(final=False, size_s=5.0, within_s=0.1) == 8


def test_lone_windows_are_believed_to_gain_half_from_company() -> None:
    book = CostBook(8)
    book.observe(final=False, size_s=5.0, count=1, seconds=0.2)
    assert book.seconds(final=False, size_s=5.0, count=1) == pytest.approx(0.2)
    assert book.seconds(final=False, size_s=5.0, count=8) == pytest.approx(0.9)


def test_an_engine_that_gains_nothing_is_not_believed_to() -> None:
    book = CostBook(1)
    book.observe(final=False, size_s=5.0, count=1, seconds=0.2)
    assert book.seconds(final=False, size_s=5.0, count=8) == pytest.approx(1.6)


def test_an_unknown_length_is_guessed_from_the_nearest() -> None:
    book = CostBook(8)
    for count in (1, 4):
        book.observe(final=False, size_s=5.0, count=count, seconds=0.1 + 0.05 * count)
    assert book.seconds(final=False, size_s=20.0, count=1) == pytest.approx(0.3)
    assert book.seconds(final=True, size_s=5.0, count=2) == pytest.approx(0.2)


@given(st.lists(st.tuples(st.integers(1, 32), st.floats(0.0001, 10.0)), min_size=1, max_size=40))
def test_no_cost_is_ever_negative_and_a_batch_always_fits_one(seen: list[tuple[int, float]]) -> None:
    book = CostBook(32)
    for count, seconds in seen:
        book.observe(final=False, size_s=5.0, count=count, seconds=seconds)
    line = book.line(final=False, size_s=5.0)
    assert line is not None
    assert min(line) >= -1e-9
    assert 1 <= book.most(final=False, size_s=5.0, within_s=0.01) <= 32


def test_what_was_long_ago_is_forgotten() -> None:
    book = CostBook(8)
    for seconds in (1.0, 0.1):
        for _ in range(300):
            book.observe(final=False, size_s=5.0, count=4, seconds=seconds)
    assert book.seconds(final=False, size_s=5.0, count=4) == pytest.approx(0.1, rel=0.01)
