"""What a frame costs the server: ``python -m benchmarks.load [--sessions 400 --seconds 30]``.

The server processes have one core, the crowds of speakers another.  Each speaker sends frames of 20 ms (640 bytes)
in real time to an engine that hears nothing, and an equal crowd does the same to a bare aiohttp handler that asks
``webrtcvad`` about each frame; they take turns, A B A B in one run.  The difference of CPU time per frame is what our
house adds.  ``--engine whisper`` measures how many sessions a Whisper holds instead (``benchmarks.capacity``),
with ``--soak MINUTES`` what they cost in memory (``benchmarks.soak``), with ``--inside`` what becomes of those inside
when they speak more than they did when they were let in (``benchmarks.inside``).

Guards, which alone decide the exit code: every frame is accounted for, in order.  Each frame carries its number in
its samples (``benchmarks.tape``); the engine compares what it hears with what was sent, a speaker compares each
final's frames with its own count, and ``closed`` must tell as much audio as was sent.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
from collections.abc import Sequence
from functools import partial

import msgspec

from benchmarks import report
from benchmarks.figures import begin, engine_of, finish, table
from benchmarks.served import speech_file
from benchmarks.sides import Account, Kind, side
from benchmarks.tape import make_tape

FLOODED = 10
"""Speakers of a flood."""
GOALS = {"beyond_bare_us": 12.0, "stall_p99_ms": 20.0, "idle_kb": 100.0}
LATE_MS = 10.0
"""A crowd later than this (p99) measured a busy machine."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be measured."""

    sessions: int = 400
    seconds: float = 30.0
    """Measured time of each side, over all windows."""
    pairs: int = 6
    """Windows of each side."""
    shares: tuple[float, ...] = (0.0, 0.5)
    """Shares of speech in what is sent; the last one is the headline."""
    warm_frames: int = 50
    """Frames everybody sends before the measured ones."""
    flood_frames: int = 1_000
    """Of each speaker in each window."""
    pinned: bool = True


# --- A B A B -----------------------------------------------------------------------------------------------------


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Both sides on one kind of audio, window by window in turns."""

    name: str
    ours: Account
    bare: Account

    @property
    def us(self) -> float:
        return statistics.median(self.ours.us_per_frame)

    @property
    def bare_us(self) -> float:
        return statistics.median(self.bare.us_per_frame)

    @property
    def beyond_us(self) -> list[float]:
        """Ours less bare, pair by pair."""
        return [a - b for a, b in zip(self.ours.us_per_frame, self.bare.us_per_frame, strict=True)]

    @property
    def ratios(self) -> list[float]:
        return [a / b for a, b in zip(self.ours.us_per_frame, self.bare.us_per_frame, strict=True)]

    def figures(self) -> dict[str, object]:
        """As it is kept: medians, their 95 % intervals over the pairs, and both sides whole."""
        told: dict[str, object] = {"us": round(self.us, 2), "bare_us": round(self.bare_us, 2)}
        for name, values in (("beyond_bare_us", self.beyond_us), ("ratio", self.ratios)):
            low, high = report.interval(values)
            told |= {name: round(statistics.median(values), 2), f"{name}_95": [round(low, 2), round(high, 2)]}
        return told | {"ours": msgspec.to_builtins(self.ours), "bare": msgspec.to_builtins(self.bare)}


async def measure(plan: Plan) -> list[Row]:
    """All rows; the headline is named so."""
    rows: list[Row] = []
    for share in plan.shares:
        headline = " (headline)" if share == plan.shares[-1] else ""
        rows.append(await row(f"{share:.0%} speech{headline}", "null", plan, make_tape(speech_file(), share)))
    tape = make_tape(speech_file(), plan.shares[-1])
    rows.append(await row(f"{plan.shares[-1]:.0%} speech, with partials", "talking", plan, tape))
    rows.append(await row(f"{plan.shares[-1]:.0%} speech, flooded", "null", plan, tape, flooded=True))
    return rows


async def row(name: str, kind: Kind, plan: Plan, tape: bytes, *, flooded: bool = False) -> Row:
    """One row: both servers on one core, the crowds on the others, one window at a time."""
    cores = sorted(os.sched_getaffinity(0))
    apart = plan.pinned and len(cores) > 1
    begin_side = partial(
        side,
        tape=tape,
        sessions=min(FLOODED, plan.sessions) if flooded else plan.sessions,
        warm_frames=plan.warm_frames,
        cpu=cores[0] if apart else None,
    )
    os.sched_setaffinity(0, cores[1:] if apart else cores)
    try:
        async with begin_side(kind) as ours, begin_side("bare") as bare:
            for _ in range(plan.pairs):
                for each in (ours, bare):
                    await (each.flooded(plan.flood_frames) if flooded else each.paced(plan.seconds / plan.pairs))
            return Row(name=name, ours=await ours.account(), bare=await bare.account())
    finally:
        os.sched_setaffinity(0, cores)


def broken(rows: Sequence[Row]) -> list[str]:
    """What the guards found, on both sides."""
    return [f"{row.name}: {what}" for row in rows for account in (row.ours, row.bare) for what in account.broken]


def shown(rows: Sequence[Row]) -> str:
    """The table for people."""
    head = (
        "audio",
        "µs/frame",
        "bare",
        "beyond",
        "(95 %)",
        "ratio",
        "core",
        "stall p99/max ms",
        "bare",
        "kB idle",
        "active",
    )
    lines = []
    for row in rows:
        low, high = report.interval(row.beyond_us)
        costs = (
            f"{row.us:.1f}",
            f"{row.bare_us:.1f}",
            f"{statistics.median(row.beyond_us):.1f}",
            f"{low:.1f}..{high:.1f}",
        )
        ratio, core = f"{statistics.median(row.ratios):.2f}", f"{row.ours.core_share:.0%}"
        stalls = [f"{account.stall.p99:.1f}/{account.stall.max:.1f}" for account in (row.ours, row.bare)]
        lines.append((row.name, *costs, ratio, core, *stalls, f"{row.ours.idle_kb:.0f}", f"{row.ours.active_kb:.0f}"))
    return table(head, lines)


def verdict(plan: Plan, rows: Sequence[Row]) -> str:
    """The headline beside what is to be reached."""
    row = rows[len(plan.shares) - 1]
    found = {
        "beyond_bare_us": statistics.median(row.beyond_us),
        "stall_p99_ms": row.ours.stall.p99,
        "idle_kb": row.ours.idle_kb,
    }
    told = [
        f"{name} {value:.1f} (goal <= {GOALS[name]:g}: {'reached' if value <= GOALS[name] else 'NOT REACHED'})"
        for name, value in found.items()
    ]
    late = max(row.ours.late.p99, row.bare.late.p99)
    noisy = f"; the crowd itself was late by {late:.0f} ms (p99): a busy machine" if late > LATE_MS else ""
    return f"{plan.sessions} speakers, {row.name}: {', '.join(told)}{noisy}"


def plan_of(arguments: Sequence[str]) -> tuple[Plan, bool]:
    """What the command line asks for, and whether the figures are kept."""
    usual = Plan()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=usual.sessions, help="speakers at once")
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="measured time of each side")
    parser.add_argument(
        "--pairs", type=int, default=usual.pairs, help="windows it is measured in, ours and bare in turns"
    )
    parser.add_argument(
        "--speech", type=float, nargs="+", default=usual.shares, help="shares of speech; last: headline"
    )
    parser.add_argument(
        "--flood-frames", type=int, default=usual.flood_frames, help="frames each of a flood's speakers sends"
    )
    parser.add_argument("--dry", action="store_true", help="keep no file")
    parser.add_argument("--unpinned", action="store_true", help="leave the cores to the system")
    asked = parser.parse_args(arguments)
    plan = Plan(
        sessions=asked.sessions,
        seconds=asked.seconds,
        pairs=asked.pairs,
        shares=tuple(asked.speech),
        flood_frames=asked.flood_frames,
        pinned=not asked.unpinned,
    )
    return plan, not asked.dry


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    if engine_of(given) == "whisper":
        from benchmarks import capacity, inside, soak  # they need the extra 'whisper'

        asked = {word.partition("=")[0] for word in given}
        other = soak.main if "--soak" in asked else inside.main if "--inside" in asked else capacity.main
        return other(given)
    plan, keep = plan_of(given)
    measured = begin("load", given)
    rows = asyncio.run(measure(plan))
    measured.figures = {"plan": msgspec.to_builtins(plan), "goals": GOALS} | {row.name: row.figures() for row in rows}
    measured.broken = broken(rows)
    return finish(measured, "load", f"{shown(rows)}\n{verdict(plan, rows)}", keep=keep)


if __name__ == "__main__":
    sys.exit(main())
