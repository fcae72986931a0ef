"""What waits for a window engine, and which of it is heard next.  Pure: time is an argument.

Finals before partials before files; within a rank the earliest deadline first, one job of each session before the
second of any.  A batch holds one rank and windows of one length, as they were when they were asked for; it is no larger
than what can be heard within its budget: a final never waits for more than that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from streamsrv.runtime.scheduling.cost import CostBook
from streamsrv.runtime.scheduling.job import Job, Rank

LINGER_S = 0.003
"""A partial waits so long for others to share its batch."""
BUDGET_S = 0.5
"""Longest batch: a final may have to wait for one."""


class Waiting:
    """Jobs that wait.  Bounded by those who put them: one partial and the unstored finals of each lane."""

    def __init__(self) -> None:
        self._jobs: dict[Rank, dict[Job, None]] = {rank: {} for rank in Rank}
        self.suit(CostBook(1), batch=1, every_s=2 * BUDGET_S)

    def suit(self, costs: CostBook, *, batch: int, every_s: float) -> None:
        """Share out the time of this engine from now on.

        Args:
            costs: what batches take.
            batch: windows the engine gains from hearing together.
            every_s: seconds between two partials of a lane; half of it is the budget of a batch of partials.
        """
        self._costs = costs
        self._batch = self._cap = batch
        self._every_s = every_s
        self.thin(1.0)

    def thin(self, stretch: float) -> None:
        """Partials come so many times less often: there is time for batches so much longer, which are cheaper."""
        self._budget_s = min(BUDGET_S, self._every_s * max(1.0, stretch) / 2)

    def __len__(self) -> int:
        return sum(len(jobs) for jobs in self._jobs.values())

    def __contains__(self, job: Job) -> bool:
        return job in self._jobs[job.rank]

    def count(self, rank: Rank) -> int:
        """Jobs of this rank that wait."""
        return len(self._jobs[rank])

    def put(self, job: Job) -> None:
        self._jobs[job.rank][job] = None

    def drop(self, job: Job) -> None:
        """Forget a job; harmless when it does not wait."""
        self._jobs[job.rank].pop(job, None)

    def oldest(self, rank: Rank) -> float | None:
        """When the longest waiting job of this rank was put."""
        return min((job.asked_at for job in self._jobs[rank]), default=None)

    @property
    def budget_s(self) -> float:
        """Longest batch of partials."""
        return self._budget_s

    # --- the engine's limits ------------------------------------------------------------------------------------

    def halve(self) -> None:
        """The engine could not bear its batch: smaller ones from now on, growing again one by one."""
        self._cap = max(1, self._cap // 2)

    def went_well(self, count: int) -> None:
        """A batch of so many was heard."""
        if count >= self._cap:
            self._cap = min(self._batch, self._cap + 1)

    # --- whose turn it is ---------------------------------------------------------------------------------------

    def take(self, now: float, *, free: int, busy: Collection[object] = ()) -> list[Job]:
        """The next batch, taken out; empty when nothing is to be heard now.

        Args:
            free: idle threads, this one included: what waits is shared among them.
            busy: lanes in other threads.
        """
        for rank in Rank:
            able = [job for job in self._jobs[rank] if job.not_before <= now and job.lane not in busy]
            if not able:
                continue
            if self._lingers(able, now, rank):
                return []
            batch = self._compose(_fairly(able), rank, free)
            for job in batch:
                del self._jobs[rank][job]
            return batch
        return []

    def wake_at(self, now: float, *, busy: Collection[object] = ()) -> float | None:
        """When ``take`` may give something that it does not give now; ``None``: only after something changes."""
        jobs = [job for jobs in self._jobs.values() for job in jobs if job.lane not in busy]
        return min((max(job.not_before, job.asked_at + LINGER_S, now) for job in jobs), default=None)

    def _lingers(self, able: list[Job], now: float, rank: Rank) -> bool:
        if rank is not Rank.PARTIAL or self._cap == 1 or len(able) >= self._cap:
            return False
        return now < min(job.asked_at for job in able) + LINGER_S

    def _compose(self, able: list[Job], rank: Rank, free: int) -> list[Job]:
        leader = able[0]
        if leader.alone:
            return [leader]
        # Engines encode and decode windows of one length together; others beside them would only wait longer.
        like = [job for job in able if not job.alone and job.size_s == leader.size_s]
        most = min(self._cap, -(-len(like) // max(1, free)))
        within_s = BUDGET_S if rank is Rank.FINAL else self._budget_s
        most = min(most, self._costs.most(final=rank is not Rank.PARTIAL, size_s=leader.size_s, within_s=within_s))
        return like[: max(1, most)]


def _fairly(jobs: Iterable[Job]) -> list[Job]:
    """By deadline, but the second job of a session comes after the first of every other."""
    turns: dict[int, int] = {}
    ordered: list[tuple[int, float, int, Job]] = []
    for place, job in enumerate(sorted(jobs, key=lambda job: (job.deadline, job.asked_at))):
        turn = turns.get(id(job.patron), 0)
        turns[id(job.patron)] = turn + 1
        ordered.append((turn, job.deadline, place, job))
    ordered.sort(key=lambda entry: entry[:3])
    return [entry[3] for entry in ordered]
