"""The threads of one window engine.  A thread that hangs cannot be ended: it is given up with its engine.

Threads of our own, not an executor's: one that hangs must not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from streamsrv.engines.base import Hypothesis, WindowEngine
from streamsrv.errors import EngineBusy, EngineError, EngineFailed, EngineLost
from streamsrv.runtime.scheduling.job import Job, Rank, Task

SWITCH_S = 0.001
"""A thread that runs Python gives way to the event loop after so long, not after the interpreter's usual 5 ms."""

Outcome: TypeAlias = Hypothesis | EngineBusy | EngineFailed | EngineLost
"""``EngineLost``: the batch broke, and nothing is known about this window."""


@dataclass(slots=True, eq=False)
class Batch:
    """What one thread hears in one go."""

    jobs: list[Job]
    tasks: list[Task]
    started: float
    alarm: asyncio.TimerHandle | None = None
    lost: bool = False
    """Its time is over; what comes of it is ignored."""
    outcomes: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0
    cost_s: float = 0.0
    """Seconds it would have taken at most with all threads busy: what it is charged."""
    begun: float = 0.0
    """Where ``cost_s`` began to count."""

    @property
    def rank(self) -> Rank:
        """All jobs have the same."""
        return self.jobs[0].rank

    @property
    def final(self) -> bool:
        return self.rank is not Rank.PARTIAL

    @property
    def size_s(self) -> float:
        """The longest window: one may have grown while it waited."""
        return max(job.size_s for job in self.jobs)


class Crew:
    """An engine and its threads.

    Threads that share a device are faster while others rest.  A batch is charged as if the others had been busy all
    the time and had slowed it as much as they can; otherwise a server at rest would promise places it has not.

    Args:
        engine: started; its abilities say how many threads.
        done: called on the event loop after each batch.
    """

    def __init__(self, engine: WindowEngine, done: Callable[[Crew, Batch], None]) -> None:
        threads = engine.abilities.parallel
        self.engine = engine
        self.idle = threads
        self.running: set[Batch] = set()
        self.dismissed = False
        self._threads = threads
        self._sharing = engine.abilities.sharing
        self._passed = 0.0  # seconds of busy devices, as a running batch counts them
        self._passed_at = 0.0
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        """At most one batch for each idle thread."""
        sys.setswitchinterval(SWITCH_S)
        for number in range(threads):
            threading.Thread(target=self._work, name=f"window-{number}", daemon=True).start()

    def hear(self, batch: Batch) -> None:
        """Give it to an idle thread."""
        self._pass()
        batch.begun = self._passed
        self.idle -= 1
        self.running.add(batch)
        self._inbox.put(batch)

    def dismiss(self) -> None:
        """Let the threads end as soon as they come back.  Safe to call twice."""
        if not self.dismissed:
            self.dismissed = True
            for _ in range(self._threads):
                self._inbox.put(None)

    def _work(self) -> None:
        while (batch := self._inbox.get()) is not None:
            begun = time.monotonic()
            batch.outcomes = hear(self.engine, batch.tasks)
            batch.seconds = time.monotonic() - begun
            try:
                self._loop.call_soon_threadsafe(self._finished, batch)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
            del batch

    def _pass(self) -> None:
        """Count the time since the last change of what runs."""
        now = time.monotonic()
        if self.running:
            self._passed += (now - self._passed_at) * min(self._sharing, self._threads / len(self.running))
        self._passed_at = now

    def _finished(self, batch: Batch) -> None:
        self._pass()
        batch.cost_s = self._passed - batch.begun if self._sharing > 1 else batch.seconds
        self.idle += 1
        self.running.discard(batch)
        self._done(self, batch)


def hear(engine: WindowEngine, tasks: Sequence[Task]) -> list[Outcome]:
    """Hear windows; one outcome each, in order, whatever goes wrong."""
    outcomes: list[Outcome] = [EngineLost("the batch was not heard")] * len(tasks)
    able: list[int] = []
    for place, task in enumerate(tasks):
        try:
            if task.samples:
                task.window.attention.take(task.samples, task.position)
            able.append(place)
        except Exception as error:  # whatever an engine's features do wrong concerns this window alone
            outcomes[place] = _lost(error)
    if able:
        for place, outcome in zip(able, _hear(engine, [tasks[place] for place in able]), strict=True):
            outcomes[place] = outcome
    return outcomes


def _hear(engine: WindowEngine, tasks: Sequence[Task]) -> Sequence[Outcome]:
    try:
        answers = engine.hear([task.window for task in tasks])
        if len(answers) != len(tasks):
            raise EngineLost(f"the engine gave {len(answers)} answers to {len(tasks)} questions")
    except EngineBusy as error:
        return [error] * len(tasks)
    except Exception as error:  # anything else an engine may raise: each window gets its own chance
        return [_lost(error)] * len(tasks)
    return [_outcome(answer) for answer in answers]


def _outcome(answer: Hypothesis | EngineError) -> Outcome:
    return answer if isinstance(answer, Hypothesis | EngineBusy | EngineFailed | EngineLost) else _lost(answer)


def _lost(error: Exception) -> EngineLost:
    lost = EngineLost("the batch broke")
    lost.__cause__ = error
    return lost
