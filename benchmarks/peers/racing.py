"""One rival against this server, window by window in turns on one machine."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence

import msgspec

from benchmarks import report
from benchmarks.peers.calling import PATIENCE_S
from benchmarks.peers.judging import Window
from benchmarks.peers.rivals import Runner
from benchmarks.peers.running import Running, started
from benchmarks.peers.search import Search
from benchmarks.peers.speech import Kind

LIMITS_S = (1.5, 3.0, 4.0, 6.0, 10.0)
TAIL_S = PATIENCE_S + 2.0
"""A window may last so much longer than its speech."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How long is looked."""

    kind: Kind = "tones"
    seconds: float = 30.0
    """Of a window."""
    most: int = 6
    """Windows of our search; a rival's, whose numbers are small, has one less."""
    ours_first: int = 8
    """Speakers on streamsrv in its second window."""
    again: int = 1
    """Pairs of windows at the numbers found, which must hold once more."""
    within_s: float = math.inf
    """Of a race: no window is begun that would end later, so that a race has its place on a shared machine."""


class Race(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    ours: Search
    theirs: Search
    gauge_ms: list[float]
    """Before and after."""

    @property
    def limit_s(self) -> float | None:
        """Where both are compared: the first limit that the rival holds with one speaker."""
        return self.theirs.first_limit

    @property
    def ratio(self) -> float | None:
        """Speakers held by streamsrv for each the rival holds; ``None``: it holds none within any limit."""
        if self.limit_s is None:
            return None
        return round(self.ours.held(self.limit_s) / self.theirs.held(self.limit_s), 1)

    @property
    def at_least(self) -> bool:
        """Whether the ratio is a lower bound: there was no time to find a number that streamsrv does not hold."""
        return self.limit_s is not None and self.ours.more_than(self.limit_s)

    @property
    def noisy(self) -> int:
        """Windows in which others used the machine."""
        return sum(window.noisy for side in (self.ours, self.theirs) for window in side.windows)

    def figures(self) -> dict[str, object]:
        """As they are kept."""
        return {
            "first_limit_s": self.limit_s,
            "ratio": self.ratio,
            "ratio_at_least": self.at_least,
            "noisy_windows": self.noisy,
            "gauge_ms": [round(value, 2) for value in self.gauge_ms],
            "held": {f"{limit:g}": self.theirs.held(limit) for limit in LIMITS_S},
            "streamsrv_held": {f"{limit:g}": self.ours.held(limit) for limit in LIMITS_S},
            "windows": [_kept(window) for window in self.theirs.windows],
            "streamsrv_windows": [_kept(window) for window in self.ours.windows],
        }


def _kept(window: Window) -> dict[str, object]:
    fields = msgspec.structs.asdict(window)
    return {name: None if isinstance(value, float) and math.isinf(value) else value for name, value in fields.items()}


async def race(rival: Runner, ours: Runner, plan: Plan) -> Race:
    """Both servers are up all the time; one works while the other waits."""
    before = report.gauge()
    until_s = time.monotonic() + plan.within_s
    theirs_search = Search(LIMITS_S, first=2, most=plan.most - 1)
    ours_search = Search(LIMITS_S, first=plan.ours_first, most=plan.most)
    async with started(rival, plan.kind) as their, started(ours, plan.kind) as our:
        again_s = 2 * plan.again * (plan.seconds + TAIL_S)
        await _turns(((their, theirs_search), (our, ours_search)), plan, until_s - again_s)
        for _ in range(plan.again):
            await _again(their, theirs_search, theirs_search.first_limit, plan, until_s)
            await _again(our, ours_search, theirs_search.first_limit, plan, until_s)
    return Race(ours=ours_search, theirs=theirs_search, gauge_ms=[before, report.gauge()])


async def _turns(sides: Sequence[tuple[Running, Search]], plan: Plan, until_s: float) -> None:
    theirs = sides[0][1]
    while True:
        asked = [(running, search, number) for running, search in sides if (number := search.next()) is not None]
        if not asked:
            return
        for running, search, _ in asked:
            search.focus = theirs.first_limit
            number = search.next()
            if number is not None:
                if time.monotonic() + plan.seconds + TAIL_S > until_s:
                    return
                await _look(running, search, number, plan)


async def _again(running: Running, search: Search, limit: float | None, plan: Plan, until_s: float) -> None:
    in_time = time.monotonic() + plan.seconds + TAIL_S <= until_s
    if in_time and limit is not None and search.held(limit):
        await _look(running, search, search.held(limit), plan)


async def _look(running: Running, search: Search, number: int, plan: Plan) -> None:
    window = await running.window(plan.kind, number, plan.seconds, len(search.windows) + 1)
    search.saw(window)
    print(
        f"  {running.name:15} {number:3} sessions: p50 {window.p50_s:.2f} s, p95 {window.p95_s:.2f} s, "
        f"growth {window.growth:+.3f}, lost {window.lost} of {window.words}, errors {window.errors} of {window.said}, "
        f"others {window.others_cores:.2f} cores"
        + (f", {len(window.broken)} broken: {window.broken[0]}" if window.broken else ""),
        file=sys.stderr,
        flush=True,
    )
