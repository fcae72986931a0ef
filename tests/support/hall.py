"""Many speakers before one window engine of known cost, on a clock of its own: the pure policy at work, replayable.

The engine takes ``a + b·B`` seconds for a batch of B partials of 5 s, others by their length; a final counts
``final_weight`` times.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from streamsrv.engines.base import Hypothesis
from streamsrv.runtime.ear import Trouble
from streamsrv.runtime.scheduling.cost import CostBook
from streamsrv.runtime.scheduling.job import Job, Rank, Task
from streamsrv.runtime.scheduling.pace import Pace
from streamsrv.runtime.scheduling.waiting import Waiting

TICK_S = 0.25


class Speaker:
    """One session, and its lanes' owner."""

    background = False

    def ready(self, job: Job) -> Task | None:
        raise NotImplementedError

    def heard(self, job: Job, heard: Hypothesis | None) -> None:
        raise NotImplementedError

    def told(self, trouble: Trouble, active: bool) -> None:
        raise NotImplementedError


@dataclass(eq=False)
class Lane:
    """A channel: speaks and pauses."""

    speaker: Speaker
    ends: float = 0.0
    asked_at: float = -10.0
    pending: Job | None = None
    gone: bool = False
    """Says nothing after this segment."""
    partials: list[float] = field(default_factory=list)
    """Waits of its partials, from the question to the engine."""
    gaps: list[float] = field(default_factory=list)
    """Between the beginnings of two partials of one segment."""


class Hall:
    """Runs the policy."""

    def __init__(
        self,
        seed: int,
        *,
        speakers: int,
        a: float,
        b: float,
        batch: int = 64,
        parallel: int = 1,
        every_s: float = 0.5,
        share: float = 1.0,
        segment_s: float = 5.0,
        final_weight: float = 1.0,
        lanes: Callable[[int], int] = lambda number: 1,
        sizes: Sequence[float] = (5.0,),
    ) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.share = share
        self.finals: list[tuple[float, float]] = []
        """(when answered, latency)"""
        self.batches: list[tuple[float, Rank, int]] = []
        self.stretches: list[tuple[float, float]] = []
        self.lanes = [Lane(speaker) for n in range(speakers) for speaker in [Speaker()] for _ in range(lanes(n))]
        self.costs = CostBook(batch)
        self.waiting = Waiting()
        self.waiting.suit(self.costs, batch=batch, every_s=every_s)
        self.pace = Pace(self.costs, every_s=every_s, floor_s=5.0, budget_s=self.waiting.budget_s, parallel=parallel)
        self.speakers = speakers
        self.extra: list[Lane] = []
        self._a, self._b, self._weight = a, b, final_weight
        self._sizes = sizes
        self._segment_s = segment_s
        self._idle = parallel
        self._busy: set[object] = set()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        for lane in self.lanes:
            self.at(self.random.uniform(0, segment_s), lambda lane=lane: self.begin(lane))  # type: ignore[misc]
        self.at(TICK_S, self._tick)

    # --- time ---------------------------------------------------------------------------------------------------

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, what))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, what = heapq.heappop(self._events)
            what()
        self.now = until

    def _tick(self) -> None:
        self.pace.update(self.now, self.speakers)
        self.stretches.append((self.now, self.pace.stretch))
        self.at(self.now + TICK_S, self._tick)

    # --- speakers -----------------------------------------------------------------------------------------------

    def begin(self, lane: Lane) -> None:
        """A segment begins."""
        if lane.gone:
            return
        lane.ends = self.now + self.random.uniform(0.5, 1.5) * self._segment_s
        lane.asked_at = -10.0
        self.at(lane.ends, lambda: self._end(lane))
        self._look(lane)

    def _look(self, lane: Lane) -> None:
        """Audio comes every 100 ms."""
        if self.now >= lane.ends:
            return
        if lane.pending is None and self.now >= lane.asked_at + self.pace.every_s - 0.005:
            lane.pending = self.put(lane, Rank.PARTIAL, self.pace.every_s)
            self.pace.asked(lane, self.now)
        self.at(self.now + 0.1, lambda: self._look(lane))

    def _end(self, lane: Lane) -> None:
        if lane.pending is not None and lane.pending in self.waiting:
            self.waiting.drop(lane.pending)
            lane.pending = None
        self.pace.quiet(lane)
        self.put(lane, Rank.FINAL, 1.0)
        pause = self._segment_s * (1 / self.share - 1) * self.random.uniform(0.5, 1.5)
        self.at(self.now + max(0.02, pause), lambda: self.begin(lane))

    def put(self, lane: Lane, rank: Rank, within_s: float) -> Job:
        job = Job(
            patron=lane.speaker,
            lane=lane,
            rank=rank,
            size_s=self.random.choice(self._sizes) if len(self._sizes) > 1 else self._sizes[0],
            asked_at=self.now,
            deadline=self.now + within_s,
        )
        self.waiting.put(job)
        self.at(self.now, self._pump)
        return job

    # --- the engine ---------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        while self._idle:
            jobs = self.waiting.take(self.now, free=self._idle, busy=self._busy)
            if not jobs:
                at = self.waiting.wake_at(self.now, busy=self._busy)
                if at is not None:
                    self.at(max(at, self.now + 1e-4), self._pump)
                return
            self._hear(jobs)

    def _hear(self, jobs: list[Job]) -> None:
        self._idle -= 1
        rank = jobs[0].rank
        self._busy.update(job.lane for job in jobs)
        self.batches.append((self.now, rank, len(jobs)))
        weight = 1.0 if rank is Rank.PARTIAL else self._weight
        seconds = self._a + self._b * sum(job.size_s for job in jobs) / 5.0 * weight
        for job in jobs:
            lane = job.lane
            assert isinstance(lane, Lane)
            if rank is Rank.PARTIAL:
                lane.partials.append(self.now - job.asked_at)
                if lane.asked_at > 0:
                    lane.gaps.append(self.now - lane.asked_at)
                lane.asked_at = self.now
                self.pace.asked(lane, self.now)
        self.at(self.now + seconds, lambda: self._heard(jobs, rank, seconds))

    def _heard(self, jobs: list[Job], rank: Rank, seconds: float) -> None:
        self._idle += 1
        self._busy.difference_update(job.lane for job in jobs)
        self.costs.observe(final=rank is not Rank.PARTIAL, size_s=jobs[0].size_s, count=len(jobs), seconds=seconds)
        if rank is Rank.FINAL:
            self.pace.finals(seconds)
        for job in jobs:
            lane = job.lane
            assert isinstance(lane, Lane)
            if rank is Rank.FINAL:
                self.finals.append((self.now, self.now - job.asked_at))
                self.pace.final_answered(self.now - job.asked_at, self.now)
            elif lane.pending is job:
                lane.pending = None
        self._pump()

    # --- what came of it ----------------------------------------------------------------------------------------

    def final_p95(self, since: float, until: float) -> float:
        return quantile([latency for at, latency in self.finals if since <= at < until], 0.95)


def quantile(values: list[float], share: float) -> float:
    """The value below which this share lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
