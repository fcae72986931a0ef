"""How much of a window engine's time reaches its sessions, on a clock of its own; benchmarks.scheduler measures it."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from streamsrv.runtime.scheduling.job import Job, Rank
from tests.support.hall import Hall, Lane

A, B, PERIOD_S = 0.02, 0.004, 0.5
BOUND = int((PERIOD_S - A) / B)
"""Sessions whose windows fill a period when all of them are heard in one batch."""
PERIODS, WARM_PERIODS = 40, 3
"""In the first ones costs are learnt: they are not counted."""
IN_TIME = 0.99


class Metronomes(Hall):
    """Every session asks once a period, at a phase of its own, whether it was answered or not."""

    def __init__(self, seed: int, *, sessions: int) -> None:
        self.latencies: dict[Job, float] = {}
        self.asked: list[Job] = []
        super().__init__(seed, speakers=sessions, a=A, b=B, batch=4_096, every_s=PERIOD_S, segment_s=PERIOD_S)

    def begin(self, lane: Lane) -> None:
        self.asked.append(self.put(lane, Rank.PARTIAL, PERIOD_S))
        self.at(self.now + PERIOD_S, lambda: self.begin(lane))

    def _heard(self, jobs: list[Job], rank: Rank, seconds: float) -> None:
        self.latencies.update((job, self.now - job.asked_at) for job in jobs)
        super()._heard(jobs, rank, seconds)


def together(seed: int, sessions: int) -> list[float]:
    """Latencies under the policy; infinite without an answer."""
    hall = Metronomes(seed, sessions=sessions)
    hall.run((PERIODS + 2) * PERIOD_S)
    counted = [job for job in hall.asked if WARM_PERIODS <= job.asked_at / PERIOD_S < PERIODS]
    return [hall.latencies.get(job, math.inf) for job in counted]


def threads(seed: int, sessions: int) -> list[float]:
    """Latencies with a thread for each session, one after the other in the engine."""
    chance = random.Random(seed)
    phases = sorted(chance.uniform(0, PERIOD_S) for _ in range(sessions))
    asked = [period * PERIOD_S + phase for period, phase in itertools.product(range(PERIODS), phases)]
    ends = itertools.accumulate(asked, lambda free, at: max(free, at) + A + B, initial=0.0)
    return [end - at for end, at in zip(itertools.islice(ends, 1, None), asked, strict=True)]


def held(latencies: list[float]) -> bool:
    return sum(latency <= PERIOD_S for latency in latencies) >= IN_TIME * len(latencies)


@pytest.mark.parametrize("seed", range(3))
def test_nine_tenths_of_the_bound_and_three_times_a_thread_for_each_are_held(seed: int) -> None:
    sessions = math.ceil(0.9 * BOUND)
    assert held(together(seed, sessions))
    assert not held(threads(seed, sessions // 3)), "so it is more than three times as many"


@pytest.mark.parametrize("seed", range(3))
def test_both_are_judged_fairly(seed: int) -> None:
    assert held(threads(seed, int(PERIOD_S / (A + B)))), "the rival bears what its engine can do"
    assert not held(together(seed, math.ceil(1.1 * BOUND))), "and nobody bears more than the bound"
