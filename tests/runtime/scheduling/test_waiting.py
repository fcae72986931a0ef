"""Whose turn it is: finals, deadlines, fairness, batches of like windows."""

from __future__ import annotations

import random

import pytest

from streamsrv.runtime.scheduling.cost import CostBook
from streamsrv.runtime.scheduling.job import Job, Rank, size_of
from streamsrv.runtime.scheduling.waiting import LINGER_S, Waiting
from tests.support.hall import Hall, Speaker, quantile


def job(
    rank: Rank = Rank.PARTIAL,
    *,
    deadline: float = 1.0,
    size_s: float = 5.0,
    speaker: Speaker | None = None,
    alone: bool = False,
    asked_at: float = 0.0,
) -> Job:
    return Job(
        patron=speaker or Speaker(),
        lane=object(),
        rank=rank,
        size_s=size_s,
        asked_at=asked_at,
        deadline=deadline,
        alone=alone,
    )


def waiting(*jobs: Job, batch: int = 8, every_s: float = 0.5, costs: CostBook | None = None) -> Waiting:
    queue = Waiting()
    queue.suit(costs or CostBook(batch), batch=batch, every_s=every_s)
    for one in jobs:
        queue.put(one)
    return queue


def costs(a: float, b: float, *, batch: int = 64, final: bool = False) -> CostBook:
    book = CostBook(batch)
    for count in (1, 2, 4, 8):
        book.observe(final=final, size_s=5.0, count=count, seconds=a + b * count)
    return book


def test_finals_go_before_partials_and_those_before_files_whatever_their_deadlines() -> None:
    partial, final, file = job(deadline=0.1), job(Rank.FINAL, deadline=9.0), job(Rank.BACKGROUND, deadline=0.0)
    queue = waiting(file, partial, final)
    assert [queue.take(1.0, free=1) for _ in range(4)] == [[final], [partial], [file], []]


def test_the_earliest_deadline_is_heard_first_and_leads_the_batch() -> None:
    late, early, middle = job(deadline=3.0), job(deadline=1.0), job(deadline=2.0)
    queue = waiting(late, early, middle, batch=2)
    assert queue.take(1.0, free=1) == [early, middle]
    assert queue.take(1.0, free=1) == [late]


def test_the_second_job_of_a_session_comes_after_the_first_of_every_other() -> None:
    greedy = Speaker()
    many = [job(deadline=0.1, speaker=greedy) for _ in range(4)]
    modest = job(deadline=5.0)
    queue = waiting(*many, modest, batch=2)
    assert queue.take(1.0, free=1) == [many[0], modest]
    assert queue.take(1.0, free=1) == many[1:3]


def test_only_windows_of_one_length_share_a_batch() -> None:
    """What an engine cannot hear together would only make those beside it wait."""
    short, long, other = job(deadline=1.0, size_s=3.0), job(deadline=2.0, size_s=5.0), job(deadline=3.0, size_s=3.0)
    queue = waiting(short, long, other)
    assert queue.take(1.0, free=1) == [short, other]
    assert queue.take(1.0, free=1) == [long]


def test_a_partial_waits_a_few_milliseconds_for_others_a_final_does_not() -> None:
    queue = waiting(job(asked_at=1.0))
    assert queue.take(1.0, free=1) == []
    assert queue.wake_at(1.0) == 1.0 + LINGER_S
    assert len(queue.take(1.0 + LINGER_S, free=1)) == 1
    queue = waiting(job(Rank.FINAL, asked_at=1.0))
    assert len(queue.take(1.0, free=1)) == 1


def test_nobody_lingers_when_the_engine_gains_nothing_or_the_batch_is_full() -> None:
    assert len(waiting(job(asked_at=1.0), batch=1).take(1.0, free=1)) == 1
    assert len(waiting(job(asked_at=1.0), job(asked_at=1.0), batch=2).take(1.0, free=1)) == 2


def test_what_waits_is_shared_among_idle_threads() -> None:
    queue = waiting(*[job() for _ in range(6)])
    assert [len(queue.take(1.0, free=free)) for free in (2, 1)] == [3, 3]


def test_a_batch_of_partials_takes_no_longer_than_half_a_period() -> None:
    queue = waiting(*[job() for _ in range(60)], batch=64, every_s=0.5, costs=costs(0.05, 0.01))
    assert len(queue.take(1.0, free=1)) == 18, "20 would just fit into 0.25 s, and be hardly cheaper each"


def test_partials_that_come_less_often_have_time_for_larger_batches() -> None:
    queue = waiting(*[job() for _ in range(60)], batch=64, every_s=0.5, costs=costs(0.1, 0.05))
    assert len(queue.take(1.0, free=1)) == 3
    queue.thin(2.0)
    assert len(queue.take(1.0, free=1)) == 7
    queue.thin(20.0)
    assert len(queue.take(1.0, free=1)) == 7, "a final may have to wait for one"
    queue.thin(0.5)
    assert len(queue.take(1.0, free=1)) == 3


def test_what_may_break_a_batch_shares_none() -> None:
    suspect = job(Rank.FINAL, deadline=0.5, alone=True)
    queue = waiting(suspect, job(Rank.FINAL), job(Rank.FINAL))
    assert queue.take(1.0, free=1) == [suspect]
    queue = waiting(job(Rank.FINAL, deadline=0.1), suspect)
    assert suspect not in queue.take(1.0, free=1)


def test_a_lane_in_a_thread_waits_and_so_does_what_the_engine_was_busy_for() -> None:
    one, two = job(Rank.FINAL), job(Rank.FINAL)
    two.not_before = 2.0
    queue = waiting(one, two)
    assert queue.take(1.0, free=1, busy={one.lane}) == []
    assert queue.wake_at(1.0, busy={one.lane}) == 2.0
    assert queue.take(1.0, free=1) == [one]
    assert queue.take(2.0, free=1) == [two]


def test_an_engine_that_cannot_bear_its_batch_gets_smaller_ones_and_larger_again() -> None:
    queue = waiting(*[job(Rank.FINAL) for _ in range(30)])
    queue.halve()
    assert len(queue.take(1.0, free=1)) == 4
    queue.went_well(4)
    assert len(queue.take(1.0, free=1)) == 5
    for _ in range(5):
        queue.halve()
    assert len(queue.take(1.0, free=1)) == 1


def test_spans_are_padded_to_the_next_class_and_to_the_floor() -> None:
    assert [size_of(round(s * 16_000), 1.0) for s in (0.2, 1.0, 1.1, 4.9, 12.5, 20.0, 31.0)] == [1, 1, 2, 5, 20, 20, 30]
    assert size_of(16_000, 5.0) == 5


@pytest.mark.parametrize("sizes", [(5.0,), (1.0, 2.0, 3.0, 5.0)])
def test_under_saturation_nobody_waits_much_longer_than_the_others(sizes: tuple[float, ...]) -> None:
    for seed in range(5):
        hall = Hall(
            seed,
            speakers=250,
            a=0.02,
            b=0.004,
            batch=16,
            lanes=lambda number: 2 if number % 5 == 0 else 1,
            sizes=sizes,
        )
        hall.run(30.0)
        waits = [wait for lane in hall.lanes for wait in lane.partials[3:]]
        assert max(waits) / quantile(waits, 0.5) <= 3.0, f"seed {seed}"


@pytest.mark.parametrize("sizes", [(5.0,), (1.0, 2.0, 3.0, 5.0)])
def test_no_final_waits_for_more_than_a_few_batches_however_many_speak(sizes: tuple[float, ...]) -> None:
    for seed in range(5):
        hall = Hall(seed, speakers=300, a=0.02, b=0.004, sizes=sizes)
        hall.run(30.0)
        assert hall.final_p95(10.0, 30.0) < 0.5, f"seed {seed}"


def test_the_same_jobs_give_the_same_batches_and_none_is_lost() -> None:
    def play() -> list[list[int]]:
        chance = random.Random(3)
        jobs = [
            job(chance.choice(tuple(Rank)), deadline=chance.random(), size_s=chance.choice((1.0, 5.0, 20.0)))
            for _ in range(200)
        ]
        queue = waiting(*jobs)
        taken = []
        while batch := queue.take(1.0, free=1):
            taken.append([jobs.index(one) for one in batch])
        return taken

    assert play() == play()
    assert sorted(number for batch in play() for number in batch) == list(range(200))
