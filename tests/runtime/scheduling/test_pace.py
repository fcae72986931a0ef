"""Partials give way before finals are late, and come back; what the engine bears is measured."""

from __future__ import annotations

import pytest

from streamsrv.runtime.scheduling.cost import CostBook
from streamsrv.runtime.scheduling.pace import LEAST_SPOKEN, LEAST_STRETCH, MEASURED, Pace
from tests.support.hall import Hall, Lane

A, B, EVERY_S = 0.02, 0.004, 0.5
BEARS = 0.95 * EVERY_S / (A / 57 + B) / 1.03
"""Speakers without a pause whose partials fill 95 % of the engine's time, in batches that are large enough."""
ENDPOINT_S = 0.4
"""Silence that ends an utterance: a share of every final's latency."""


def pace(*, batches: int = 50) -> Pace:
    costs = CostBook(64)
    for number in range(batches):
        count = 1 + number % 57
        costs.observe(final=False, size_s=5.0, count=count, seconds=A + B * count)
    return Pace(costs, every_s=EVERY_S, floor_s=5.0, budget_s=0.25, parallel=1)


def play(measured: Pace, speaking: int, seconds: float, *, sessions: int | None = None, since: float = 0.0) -> None:
    lanes = [(n,) for n in range(speaking)]
    for step in range(round(seconds * 4)):
        now = since + step / 4
        for lane in lanes:
            measured.asked(lane, now)
        measured.update(now, speaking if sessions is None else sessions)


def test_the_promised_pace_is_kept_while_it_fits() -> None:
    measured = pace()
    play(measured, int(BEARS) - 2, 10.0)
    assert measured.stretch == 1.0


def test_beyond_it_the_pace_stretches_at_once_so_that_it_fits() -> None:
    measured = pace()
    play(measured, 220, 1.0)
    assert measured.stretch == pytest.approx(220 / BEARS, rel=0.05)
    assert measured.every_s == pytest.approx(EVERY_S * measured.stretch)


def test_it_comes_back_when_they_are_silent() -> None:
    measured = pace()
    play(measured, 220, 5.0)
    play(measured, int(BEARS) - 2, 60.0, since=10.0)
    assert measured.stretch == pytest.approx(1.0, abs=0.02)


def test_with_time_to_spare_partials_come_more_often_than_promised() -> None:
    measured = pace()
    play(measured, 10, 60.0)
    assert measured.stretch == pytest.approx(LEAST_STRETCH, abs=0.02)
    play(measured, int(BEARS) - 2, 1.0, since=60.0)
    assert measured.stretch == 1.0, "and no longer when others speak"


def test_late_finals_stretch_it_whatever_the_costs_say() -> None:
    measured = pace()
    play(measured, 60, 5.0)
    measured.final_answered(1.4, 5.0)
    play(measured, 60, 0.5, since=5.0)
    assert measured.stretch > 1.2
    play(measured, int(BEARS) - 2, 60.0, since=12.0)
    assert measured.stretch == pytest.approx(1.0, abs=0.02)


def test_what_it_bears_follows_the_share_of_speech() -> None:
    measured = pace()
    play(measured, 50, 600.0, sessions=100)
    assert measured.share == pytest.approx(0.5, abs=0.02)
    sessions = measured.sessions()
    assert sessions is not None
    assert sessions == pytest.approx(BEARS / 0.5, rel=0.05)


def test_those_who_left_leave_no_debt_to_those_who_come() -> None:
    measured = pace()
    lanes = [(n,) for n in range(40)]
    for step in range(120):
        for lane in lanes:
            measured.asked(lane, step / 4)
        measured.finals(0.05)
        measured.update(step / 4, 40)
    during = measured.sessions()
    for lane in lanes:
        measured.quiet(lane)
    for step in range(120, 124):
        measured.update(step / 4, 0)
        after = measured.sessions()
        assert during is not None
        assert after is not None
        assert after == pytest.approx(during, rel=0.15)


def test_a_silent_room_may_begin_to_speak() -> None:
    measured = pace()
    play(measured, 0, 3_000.0, sessions=100)
    assert measured.share == LEAST_SPOKEN


def test_what_it_bears_follows_the_length_of_the_windows_that_are_heard() -> None:
    costs = CostBook(64)
    for number in range(60):
        count = 1 + number % 15
        for size_s in (1.0, 3.0):
            costs.observe(final=False, size_s=size_s, count=count, seconds=A + size_s * B * count)
    measured = Pace(costs, every_s=EVERY_S, floor_s=1.0, budget_s=0.25, parallel=1)
    short = measured.sessions()
    for _ in range(100):
        measured.partials(3.0, 8)
    long = measured.sessions()
    assert short is not None
    assert long is not None
    assert 0.3 < long / short < 0.55, "windows of three seconds, not of the shortest one there is"


def test_nothing_is_told_before_enough_was_heard() -> None:
    assert pace(batches=MEASURED - 1).sessions() is None
    assert pace(batches=MEASURED).sessions() is not None


def admitted(seed: int) -> int:
    """Speakers that come in, one after the other, at a share of speech of 0.6."""
    hall = Hall(seed, speakers=60, a=A, b=B, share=0.6)
    hall.run(60.0)
    bears = hall.pace.sessions()
    assert bears is not None
    return int(bears)


@pytest.mark.parametrize("seed", range(4))
def test_those_admitted_keep_their_finals_when_all_of_them_speak_for_two_minutes(seed: int) -> None:
    inside = admitted(seed)
    hall = Hall(seed, speakers=inside, a=A, b=B, share=0.6)
    hall.run(60.0)
    normal, told = hall.final_p95(10.0, 60.0), hall.pace.stretch
    hall.share = 1.0
    hall.run(180.0)
    assert told < 1.2
    assert hall.pace.stretch > 1.3, "partials thin out"
    assert ENDPOINT_S + hall.final_p95(70.0, 180.0) <= 1.5 * (ENDPOINT_S + normal)
    for lane in hall.lanes:
        assert len(lane.partials) > 60, "and nobody is left without"


@pytest.mark.parametrize("seed", range(4))
def test_after_a_burst_of_twice_as_many_everything_is_as_before(seed: int) -> None:
    hall = Hall(seed, speakers=admitted(seed), a=A, b=B, share=0.6)
    hall.run(60.0)
    normal = hall.final_p95(10.0, 60.0)
    burst = [Lane(lane.speaker) for lane in hall.lanes]
    for lane in burst:
        hall.begin(lane)
    hall.run(65.0)
    assert hall.pace.stretch > 1.5
    for lane in burst:
        lane.gone = True
    hall.run(120.0)
    assert hall.pace.stretch < 1.2
    assert hall.final_p95(100.0, 120.0) < 1.3 * normal
