"""The budget of small messages, on a clock wound by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamsrv.server.budget import FREE_BYTES, Budget


def spent(budget: Budget, now: float, most: int = 10_000) -> int:
    """How many messages pass at one moment."""
    for count in range(most):
        if not budget.spend(now):
            return count
    return most


def test_a_second_s_messages_pass_at_once_and_no_more() -> None:
    assert spent(Budget(1_000, 5.0), 5.0) == 1_000


def test_it_fills_with_time_and_never_over_the_brim() -> None:
    budget = Budget(1_000, 0.0)
    assert spent(budget, 0.0) == 1_000
    assert spent(budget, 0.1) in (98, 99, 100), "a tenth, less the refused one"
    assert spent(Budget(1_000, 0.0), 3_600.0) == 1_000


def test_the_steady_rate_passes_for_ever() -> None:
    budget = Budget(1_000, 0.0)
    assert all(budget.spend(number / 1_000) for number in range(100_000))
    budget = Budget(1_000, 0.0)
    assert not all(budget.spend(number / 1_100) for number in range(100_000))


@given(st.lists(st.floats(0, 0.05), max_size=400), st.integers(50, 500))
def test_no_window_passes_more_than_a_burst_and_the_rate(gaps: list[float], per_s: int) -> None:
    budget, now, times = Budget(per_s, 0.0), 0.0, []
    for gap in gaps:
        now += gap
        if budget.spend(now):
            times.append(now)
    for at, first in enumerate(times):
        within = sum(1 for one in times[at:] if one <= first + 1.0)
        assert within <= 2 * per_s + 1


def test_telephone_packets_are_free() -> None:
    assert FREE_BYTES <= 8_000 * 20 // 1_000, "20 ms of 8 kHz mu-law"
