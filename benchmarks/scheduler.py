"""How much of a window engine's time reaches its sessions: ``python -m benchmarks.scheduler [--keep] [--quick]``.

The engine is fake: it sleeps ``a + b·B`` seconds for a batch of B windows, so nothing but the scheduling is measured.
Each session asks once per period at a random phase, whether it was answered or not (open loop); an answer must come
within one period.  The bound is what a scheduler could do that had all of a period's windows in one batch:
the largest N with ``a + b·N ≤ period``.  The naive way is a thread per session behind a lock.

Held is a number of sessions of whose questions 99 % are answered in time.  The ways run in turns, in one process.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence

from benchmarks import figures
from streamsrv import telemetry
from streamsrv.engines.base import Abilities, About, Attention, Hypothesis, Window
from streamsrv.errors import EngineError
from streamsrv.facts import RATE_HZ, Answer, Position, Word
from streamsrv.runtime.scheduler import Scheduler
from streamsrv.runtime.window import WindowEar
from streamsrv.session.effects import Hear

ENGINES = ((0.020, 0.004, 0.5), (0.010, 0.002, 0.5), (0.050, 0.005, 1.0))
"""(a, b, period), seconds."""
IN_TIME = 0.99
WARM_PERIODS = 3
"""Periods that are not counted: costs are learnt in them."""
SPAN = 2 * RATE_HZ


class Numbered:
    """An attention that is only a number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def take(self, samples: bytes, position: Position) -> None: ...
    def forget(self, before: Position) -> None: ...
    def close(self) -> None: ...


class Sleeper:
    """A window engine of known cost; its answer tells whose window it was."""

    healthy = True

    def __init__(self, a: float, b: float, period: float) -> None:
        self.abilities = Abilities(live=False, languages=None, batch=4_096, partial_every_s=period, floor_s=5.0)
        self.about = About(name="sleeper", model="none", device="none")
        self._a, self._b = a, b
        self._next = 0

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def attend(
        self, *, language: str | None, task: str = "transcribe", prompt: str = "", hotwords: tuple[str, ...] = ()
    ) -> Attention:
        self._next += 1
        return Numbered(self._next - 1)

    def hear(self, windows: Sequence[Window]) -> Sequence[Hypothesis | EngineError]:
        time.sleep(self._a + self._b * len(windows))
        return [self._answer(window) for window in windows]

    def _answer(self, window: Window) -> Hypothesis:
        assert isinstance(window.attention, Numbered)
        word = Word(text=str(window.attention.number), start=0, stop=1, confidence=1.0)
        return Hypothesis(words=(word,))


class Run:
    """What came of one run."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.unanswered = 0
        self.wrong = 0

    def held(self, period: float) -> bool:
        asked = len(self.latencies) + self.unanswered
        return sum(latency <= period for latency in self.latencies) >= IN_TIME * asked


async def ours(a: float, b: float, period: float, sessions: int, periods: int, seed: int) -> Run:
    """The scheduler, with the ears sessions have."""
    run, chance = Run(), random.Random(seed)
    scheduler = Scheduler(Sleeper(a, b, period), telemetry.Metrics("benchmark"))
    loop = asyncio.get_running_loop()
    begin = loop.time() + 0.1

    def speak(number: int) -> WindowEar:
        asked: dict[int, float] = {}
        questions: dict[int, Hear] = {}

        def answered(answer: Answer) -> None:
            due = asked.pop(answer.request)
            del questions[answer.request]
            if due < begin + WARM_PERIODS * period:
                return
            if answer.failed:
                run.unanswered += 1
                return
            run.latencies.append(loop.time() - due)
            run.wrong += answer.words[0].text != str(number)

        ear = WindowEar(
            scheduler,
            channels=1,
            language=None,
            read=lambda channel, start, stop: bytes(2 * (stop - start)),
            answered=answered,
            troubled=lambda active, reason="engine": None,
            picked=questions.get,
        )

        def ask(request: int, due: float) -> None:
            asked[request] = due
            questions[request] = question = Hear(
                request=request, channel=0, segment=0, start=0, stop=SPAN, final=False, deadline=due + period
            )
            ear.hear(question)

        phase = chance.random() * period
        for request in range(periods + WARM_PERIODS):
            due = begin + phase + request * period
            loop.call_at(due, ask, request, due)
        return ear

    ears = [speak(number) for number in range(sessions)]
    await asyncio.sleep((periods + WARM_PERIODS + 2) * period + 0.1)
    for ear in ears:
        ear.close()
    await scheduler.close()
    return run


async def naive(a: float, b: float, period: float, sessions: int, periods: int, seed: int) -> Run:
    """A thread per session, one at a time in the model."""
    run, chance, model = Run(), random.Random(seed), threading.Lock()
    begin = time.monotonic() + 0.1

    def speak(phase: float) -> None:
        for request in range(periods):
            due = begin + phase + request * period
            time.sleep(max(0.0, due - time.monotonic()))
            with model:
                time.sleep(a + b)
            run.latencies.append(time.monotonic() - due)

    threads = [threading.Thread(target=speak, args=(chance.random() * period,)) for _ in range(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    return run


def most(way: Callable[[int], Run], period: float, low: int, high: int) -> int:
    """The largest number of sessions that is held, 0 when ``low`` is not; found by halving what is left."""
    if not way(low).held(period):
        return 0
    while high - low > max(1, high // 100):
        middle = (low + high + 1) // 2
        low, high = (middle, high) if way(middle).held(period) else (low, middle - 1)
    return low


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="keep the figures in benchmarks/results")
    parser.add_argument("--quick", action="store_true", help="one engine, short runs")
    wanted = parser.parse_args(arguments)
    measured = figures.begin("scheduler", arguments)
    periods, rounds = (6, 1) if wanted.quick else (10, 2)
    lines = [f"{'a + b·B, period':<26}{'bound':>7}{'ours':>7}{'of bound':>10}{'naive':>7}{'ours : naive':>14}"]
    rows: list[dict[str, object]] = []
    for a, b, period in ENGINES[: 1 if wanted.quick else None]:
        bound = int((period - a) / b)
        ours_held, naive_held, wrong = [], [], 0

        def run_ours(sessions: int, a: float = a, b: float = b, period: float = period) -> Run:
            nonlocal wrong
            run = asyncio.run(ours(a, b, period, sessions, periods, sessions))
            wrong += run.wrong
            return run

        def run_naive(sessions: int, a: float = a, b: float = b, period: float = period) -> Run:
            return asyncio.run(naive(a, b, period, sessions, periods, sessions))

        for _ in range(rounds):
            ours_held.append(most(run_ours, period, bound * 3 // 4, bound))
            naive_held.append(most(run_naive, period, 1, int(period / (a + b)) + 2))
        best, rival = int(statistics.median(ours_held)), int(statistics.median(naive_held))
        name = f"{a * 1e3:g} + {b * 1e3:g}·B ms, {period:g} s"
        lines.append(f"{name:<26}{bound:>7}{best:>7}{best / bound:>10.1%}{rival:>7}{best / max(1, rival):>13.1f}x")
        rows.append({"a_s": a, "b_s": b, "period_s": period, "bound": bound, "ours": ours_held, "naive": naive_held})
        if wrong:
            measured.broken.append(f"{name}: {wrong} answers were somebody else's")
    measured.figures["engines"] = rows
    return figures.finish(measured, "scheduler", "\n".join(lines), keep=wanted.keep)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
