"""``python -m tests.adversity.runs``: randomised runs.

python -m tests.adversity.runs --seeds 300          seeds 0 to 299, four at a time
python -m tests.adversity.runs --seed 17            that one again, with its plan
python -m tests.adversity.runs --judge LEDGER       judge a ledger again
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import get_args

import msgspec

from tests.adversity.runs import ledger as ledgers
from tests.adversity.runs.judge import judge
from tests.adversity.runs.ledger import Ledger
from tests.adversity.runs.nursery import Nursery
from tests.adversity.runs.odds import Shape
from tests.adversity.runs.plan import Plan, make, undisturbed
from tests.adversity.runs.services import Services
from tests.adversity.runs.stage import Stage
from tests.models import tone

WHOLE_WITHIN_S = 150.0
"""A run that has not come to its end by then broke, whatever it waits for."""
SLOW_S = 15.0
"""Longer ones are counted; a run on a busy machine is no fault."""
AT_ONCE = 4
PAIRS_AT_ONCE = 2
"""Of those, and one while lone nodes are left: a pair and its services cost three times as much as a node alone, and
two cores bear one of them beside three, or two of them."""
DIGITS = Path(__file__).parents[2] / "models" / "digits"


async def perform(plan: Plan, models: Path, folder: Path, services: Services | None = None) -> tuple[Ledger, list[str]]:
    """Run a plan, in a nursery, and without its faults too where the text is unknown; the ledger and the complaints."""
    model = _model(plan, models)
    if plan.spoken == "tones":
        ledger = await Stage(plan, model, folder / "disturbed", services).run()
        return ledger, judge(ledger)
    begun = time.monotonic()
    alone = msgspec.structs.replace(undisturbed(plan), shape="alone")
    async with asyncio.TaskGroup() as both:
        calmly = both.create_task(Stage(alone, model, folder / "undisturbed").run())
        running = both.create_task(Stage(plan, model, folder / "disturbed", services).run())
    calm, ledger = calmly.result(), running.result()
    ledger.seconds["undisturbed"] = round(time.monotonic() - begun - sum(ledger.seconds.values()), 2)
    if complaints := judge(calm, calm):
        return calm, [f"undisturbed: {one}" for one in complaints]
    return ledger, judge(ledger, calm)


def _model(plan: Plan, models: Path) -> Path:
    return DIGITS if plan.spoken == "digits" else models / "tone"


async def perform_all(plans: Sequence[Plan], folder: Path, at_once: int) -> tuple[list[int], list[float]]:
    """Run plans, some at a time; the seeds of those that failed, and the seconds that each took."""
    if this := asyncio.current_task():  # as SIGINT does: nodes, services and disks go as well
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    spent: list[float] = []
    waiting = deque(plans)
    failed: list[int] = []

    async def slot(services: Services | None, shapes: Sequence[Shape]) -> None:
        while plan := next((one for shape in shapes for one in waiting if one.shape == shape), None):
            waiting.remove(plan)
            well, seconds = await _one(plan, folder, services if plan.shape == "pair" else None)
            spent.append(seconds)
            if not well:
                failed.append(plan.seed)

    slots = min(at_once, len(plans))
    pairs = min(slots, PAIRS_AT_ONCE, sum(plan.shape == "pair" for plan in plans))
    slots = slots if any(plan.shape == "alone" for plan in plans) else pairs
    async with Nursery(), AsyncExitStack() as services:
        # Before the first run: Kafkas that start take seconds of both cores.
        standing = await asyncio.gather(
            *(services.enter_async_context(Services(folder / f"services-{number}")) for number in range(pairs))
        )
        if len(plans) > slots:
            await asyncio.gather(*(_rehearse(one, plans, folder / f"rehearsal-{n}") for n, one in enumerate(standing)))
        takes: list[tuple[Services | None, Sequence[Shape]]] = [(None, ("alone",))] * (slots - pairs)
        takes += [(one, ("alone", "pair") if number else ("pair", "alone")) for number, one in enumerate(standing)]
        await asyncio.gather(*(slot(*each) for each in takes))
    return sorted(failed), spent


async def _rehearse(services: Services, plans: Sequence[Plan], folder: Path) -> None:
    """What runs in Java compiles itself while it is used: the first run of a pair would take twice as long."""
    plan = next(one for one in plans if one.shape == "pair")
    await Stage(undisturbed(plan), _model(plan, folder.parent), folder, services).run()
    shutil.rmtree(folder)


async def _one(plan: Plan, folder: Path, services: Services | None) -> tuple[bool, float]:
    place = folder / f"{plan.shape}-{plan.seed}"
    shutil.rmtree(place, ignore_errors=True)
    try:
        async with asyncio.timeout(WHOLE_WITHIN_S):
            ledger, complaints = await perform(plan, folder, place, services)
    except Exception as failure:
        ledger, complaints = Ledger(plan=plan), [f"stage: {type(one).__name__}: {one}" for one in _causes(failure)]
    faults = " ".join(fault.short for fault in plan.faults) or "nothing"
    whole, verdict = sum(ledger.seconds.values()), "BROKE" if complaints else "ok   "
    parts = ", ".join(f"{part} {spent:.1f}" for part, spent in ledger.seconds.items())
    _say(f"seed {plan.seed:4} {plan.shape:5} {whole:5.1f} s  {verdict}  {faults}  ({parts})")
    if not complaints:
        shutil.rmtree(place)
        return True, whole
    place.mkdir(parents=True, exist_ok=True)
    where = ledger.write(place / "ledger.json")
    for complaint in complaints[:8]:
        _say(f"    {complaint}")
    _say(f"    again: python -m tests.adversity.runs --shape {plan.shape} --seed {plan.seed}    ledger: {where}")
    return False, whole


def _causes(failure: BaseException) -> list[BaseException]:
    """What a group of exceptions is made of."""
    if isinstance(failure, BaseExceptionGroup):
        return [cause for one in failure.exceptions for cause in _causes(one)]
    return [failure]


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.adversity.runs", description="randomised runs")
    parser.add_argument("--shape", choices=get_args(Shape), help="all of this shape; by default even seeds are alone")
    parser.add_argument("--seed", type=int, action="append", default=[], help="run this one; may be given again")
    parser.add_argument("--seeds", type=int, default=20, help="how many, when no seed is named (20)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help=f"runs at the same time ({AT_ONCE})")
    parser.add_argument("--folder", type=Path, help="for data, logs and ledgers; a new one by default")
    parser.add_argument("--judge", type=Path, metavar="LEDGER", help="judge this ledger again, run nothing")
    return parser.parse_args()


def main() -> int:
    chosen = _parsed()
    if chosen.judge:
        complaints = judge(ledgers.read(chosen.judge))
        _say("\n".join(complaints) or "nothing to complain about")
        return 1 if complaints else 0
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="streamsrv-runs-"))
    if not (folder / "tone").exists():
        tone.make(folder / "tone")
    seeds = chosen.seed or range(chosen.first, chosen.first + chosen.seeds)
    plans = [make(seed, chosen.shape) for seed in seeds]
    if chosen.seed:
        _say("\n".join(map(str, plans)))
    begun = time.monotonic()
    try:
        failed, spent = asyncio.run(perform_all(plans, folder, chosen.at_once))
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    slow = f"{sum(seconds > SLOW_S for seconds in spent)} took more than {SLOW_S:g} s, the longest {max(spent):.0f} s"
    _say(f"{len(seeds)} runs, {len(failed)} broke ({failed}), {time.monotonic() - begun:.0f} s; {slow}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
