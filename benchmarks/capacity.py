"""How many live sessions Whisper holds: ``python -m benchmarks.load --engine whisper [--floors 1 5 10]``.

For each window floor a server with default settings, and speakers without a pause, or nearly.  Held is the largest
number of sessions, all let in at the door, whose words are stable within ``LIMIT_MS`` of their ends (p95 of all words
pooled).  It is looked for by halving, then confirmed in a longer run, in which a backlog would show; one that is not
confirmed is lowered until it is.

Guards, which alone decide the exit code: no stable word taken back, every segment one final, all audio accounted for,
and of tones every word heard.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import plot
from benchmarks.figures import begin, finish, spread, table
from benchmarks.script import Script
from benchmarks.spoken import digits, tones
from benchmarks.trials import MADE, TONES, Trial, model_folder, server, trial

LIMIT_MS: Final = 1_500.0
GOALS: Final = {1: 32, 5: 10, 10: 6}
GUESSES: Final = {1: 40, 5: 20, 10: 12}
"""Sessions the search begins with."""
MOST_GROWTH: Final = 0.02
"""Seconds that latency may grow by in a second of audio: with more a server falls behind, and holds nobody for long."""
GROWS_AFTER_MS: Final = 30_000
"""Shorter runs cannot tell growth from chance."""
STALLS_MS: Final = (5.0, 20.0)
"""Goals of the loop: p99 and maximum."""
REST_S: Final = 2.0
"""Between two runs: the pace comes back to normal."""
LOWER: Final = 0.9


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be measured."""

    model: str = "tone"
    """``tone``: at tiny.en's true size; ``digits-tiny-cost``; or the folder of a model of digits."""
    floors: tuple[int, ...] = (1, 5, 10)
    seconds: float = 12.0
    """Of speech in each run of the search."""
    confirm_s: float = 60.0
    share: float = 0.85
    """Of the time that is spoken."""
    sessions: tuple[int, ...] = ()
    """Measure these numbers, search none."""
    first: int | None = None
    """Sessions the search begins with."""
    settings: tuple[str, ...] = ()
    """Settings of the server, as ``KEY=VALUE``; the others are the default ones."""

    @property
    def exact(self) -> bool:
        """Whether every word must be heard."""
        return self.model in TONES


class Found(msgspec.Struct, kw_only=True):
    """One floor."""

    floor: int
    tried: list[Trial] = []
    held: Trial | None = None
    """The confirming run."""


def holds(run: Trial) -> bool:
    """Whether everybody was let in and the words came in time; in a run long enough to tell, also that nobody waits
    longer and longer."""
    behind = run.growth > MOST_GROWTH and max(run.heard.ends, default=0.0) >= GROWS_AFTER_MS
    return run.refused == 0 and run.commit.p95 <= LIMIT_MS and not behind


async def measure(plan: Plan) -> list[Found]:
    """All floors, one server after the other."""
    found = []
    async with model_folder(plan.model) as model:
        for floor in plan.floors:
            async with server(model, f"whisper.window_floor_s={floor}", *plan.settings) as port:
                found.append(await _search(plan, port, floor))
    return found


async def _search(plan: Plan, port: int, floor: int) -> Found:
    found = Found(floor=floor)

    async def run(sessions: int, seconds: float) -> Trial:
        seed = 1_000 * floor + len(found.tried)
        done = await trial(port, [_script(plan, 100 * seed + n, seconds) for n in range(sessions)], seed=seed)
        found.tried.append(done)
        print(f"floor {floor} s: {_told(done)}", file=sys.stderr, flush=True)
        await asyncio.sleep(REST_S)
        return done

    await run(1, plan.seconds)  # what batches cost is learnt
    for sessions in sorted(plan.sessions):
        last = await run(sessions, plan.confirm_s)
        if holds(last):
            found.held = last
    sessions = 0 if plan.sessions else await _most(run, plan, plan.first or GUESSES.get(floor, 12))
    while sessions > 0 and found.held is None:
        last = await run(sessions, plan.confirm_s)
        if holds(last):
            found.held = last
        sessions = min(sessions - 1, int(sessions * LOWER))
    return found


async def _most(run: Callable[[int, float], Awaitable[Trial]], plan: Plan, guess: int) -> int:
    """The largest number that holds in short runs, within a tenth; 0 when none does."""
    low, high = 0, 0
    while high == 0 or high - low > max(1, low // 10):
        sessions = (low + high + 1) // 2 if high else guess if not low else low * 3 // 2
        if holds(await run(sessions, plan.seconds)):
            low = sessions
        else:
            high = sessions
    return low


def _script(plan: Plan, seed: int, seconds: float) -> Script:
    if plan.exact:
        return tones(seed, seconds, share=plan.share)
    return digits(seed, seconds)


# --- telling ----------------------------------------------------------------------------------------------------------


def broken(plan: Plan, found: Sequence[Found]) -> list[str]:
    """What the guards found in all runs."""
    told = []
    for each in found:
        for run in each.tried:
            told += [f"floor {each.floor} s, {run.sessions} sessions: {what}" for what in run.heard.broken]
            if plan.exact and run.heard.truth_errors:
                wrong = run.heard.truth_errors
                told.append(f"floor {each.floor} s, {run.sessions} sessions: {wrong} of {run.heard.truth} words wrong")
    return told


def figures(found: Found) -> dict[str, object]:
    """As they are kept."""
    runs = [_run(run) for run in found.tried]
    return {
        "floor_s": found.floor,
        "goal": GOALS.get(found.floor),
        "held": found.held.sessions if found.held else 0,
        "confirmed": _run(found.held) if found.held else None,
        "runs": runs,
    }


def _run(run: Trial) -> dict[str, object]:
    heard = run.heard
    pools = {"commit": heard.commit, "first_partial": heard.first_partial, "finalise": heard.finalise}
    return {
        "sessions": run.sessions,
        "refused": run.refused,
        **{f"{name}_ms": msgspec.to_builtins(spread(pool)) for name, pool in pools.items()},
        "flush_ms": msgspec.to_builtins(spread(heard.flush)),
        "growth": round(run.growth, 4),
        "words": heard.words,
        "stable_before_final": heard.stable,
        "words_spoken": heard.truth,
        "words_wrong": heard.truth_errors,
        "withdrawn": heard.withdrawn,
        "stall_ms": msgspec.to_builtins(run.stall),
        "long_stalls": msgspec.to_builtins(run.long_stalls),
        "cores": run.cores,
        "others_cores": run.others,
        "stolen_ms": run.stolen_ms,
        "rss_mb": run.rss_mb,
        "told_degraded": run.degraded,
        "speaker_late_ms": msgspec.to_builtins(spread(heard.late)),
    }


def shown(found: Sequence[Found]) -> str:
    """The table for people."""
    stalls_goal = "/".join(f"{goal:g}" for goal in STALLS_MS)
    times = ("commit p50", "p95", "p99", "first p50", "final p95", "growth", f"stall p99/max ({stalls_goal})")
    head = ("floor", "held", "goal", *times, "cores", "others")
    rows = []
    for each in found:
        goal, run = str(GOALS.get(each.floor, "-")), each.held
        if run is None:
            rows.append((f"{each.floor} s", "0", goal, *["-"] * 9))
            continue
        commit, finals = run.commit, spread(run.heard.finalise)
        said = (f"{commit.p50:.0f}", f"{commit.p95:.0f}", f"{commit.p99:.0f}")
        first, final = f"{spread(run.heard.first_partial).p50:.0f}", f"{finals.p95:.0f}"
        stalls = f"{run.stall.p99:.1f}/{run.stall.max:.1f}"
        rest = (first, final, f"{run.growth:+.3f}", stalls, f"{run.cores:.2f}", f"{run.others:.2f}")
        rows.append((f"{each.floor} s", str(run.sessions), goal, *said, *rest))
    tried = [f"floor {each.floor} s: " + ", ".join(_told(run) for run in each.tried) for each in found]
    return "\n".join([table(head, rows), "p95 of every run, ms:", *tried])


def _told(run: Trial) -> str:
    refused = f" ({run.refused} refused)" if run.refused else ""
    return f"{run.sessions} -> {run.commit.p95:.0f}{refused}"


def drawn(path: Path, found: Sequence[Found], model: str) -> Path:
    """Sessions against p95 of word commit."""
    told = []
    for each in found:
        runs = sorted((run for run in each.tried if not run.refused), key=lambda run: run.sessions)
        told.append(
            plot.Line(
                name=f"floor {each.floor} s",
                x=[float(run.sessions) for run in runs],
                y=[run.commit.p95 for run in runs],
            )
        )
    return plot.lines(
        path,
        told,
        title=f"Live sessions on one Whisper ({model})",
        x="sessions at once",
        y="word end to stable, p95, ms",
        limits={"limit": LIMIT_MS},
        marked=True,
    )


def main(arguments: Sequence[str]) -> int:
    """The command; its exit status."""
    usual = Plan()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load --engine whisper", description=__doc__)
    parser.add_argument("--engine", choices=("whisper",))
    parser.add_argument("--model", default=usual.model, help="tone, digits-tiny-cost, or a folder of digits")
    parser.add_argument("--floors", type=int, nargs="+", default=usual.floors, help="shortest windows, seconds")
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="of speech in each run of the search")
    parser.add_argument("--confirm-s", type=float, default=usual.confirm_s, help="of speech in the confirming run")
    parser.add_argument("--share", type=float, default=usual.share, help="of the time that is spoken (tones)")
    parser.add_argument("--sessions", type=int, nargs="+", default=(), help="measure these numbers, search none")
    parser.add_argument("--first", type=int, help="sessions the search begins with")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="settings", help="a setting of the server"
    )
    parser.add_argument("--dry", action="store_true", help="keep no file")
    asked = parser.parse_args(arguments)
    lists = {name: tuple(getattr(asked, name)) for name in ("floors", "sessions", "settings")}
    given = vars(asked) | lists
    plan = Plan(**{name: given[name] for name in Plan.__struct_fields__})
    measured = begin("load", arguments)
    found = asyncio.run(measure(plan))
    model = MADE.get(plan.model) or Path(plan.model).resolve().name
    measured.figures = {"model": model, "share": plan.share, "floors": [figures(each) for each in found]}
    measured.broken = broken(plan, found)
    name = "load-whisper" if plan.model == "tone" else f"load-whisper-{Path(plan.model).name}"
    if len(plan.floors) == 1:
        name += f"-floor-{plan.floors[0]}"
    if not asked.dry:
        drawn(plot.place(name, measured.date), found, model)
    return finish(measured, name, shown(found), keep=not asked.dry)
