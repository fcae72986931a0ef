"""Percentiles, tables and the last lines of the benchmarks that measure a running server."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from importlib.metadata import version

import msgspec

from benchmarks import report

MOST_TOLD = 20
"""Broken guards that are printed; the file holds all."""


class Measured(report.Report, kw_only=True):
    """A report whose figures are no pairs of jobs."""

    figures: dict[str, object] = msgspec.field(default_factory=dict)
    broken: list[str] = msgspec.field(default_factory=list)
    """What the guards found; empty when the figures may be believed."""


def begin(name: str, arguments: Sequence[str]) -> Measured:
    """A report with the machine as it is before the run."""
    begun = report.begin(" ".join(["python -m", f"benchmarks.{name}", *arguments]))
    begun.machine["packages"] += f" aiohttp {version('aiohttp')}"
    return Measured(command=begun.command, date=begun.date, machine=begun.machine, gauge={"before_ms": report.gauge()})


def finish(measured: Measured, name: str, text: str, *, keep: bool) -> int:
    """Print, keep, and give the exit status: 1 when a guard failed, whatever the figures."""
    measured.gauge["after_ms"] = report.gauge()
    measured.gauge["noisy"] = float(report.is_noisy(measured.gauge))
    print(f"{measured.command}   {measured.date}")
    print("   ".join(measured.machine.values()))
    print(text)
    print(report.gauge_told(measured.gauge))
    print("\n".join(f"GUARD FAILED: {what}" for what in measured.broken[:MOST_TOLD]) or "guards held")
    if keep:
        print(f"kept in {os.path.relpath(report.write(measured, name))}")
    return 1 if measured.broken else 0


def engine_of(arguments: Sequence[str]) -> str | None:
    """The engine a command line asks for, before it is known which flags that engine's benchmark has."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--engine")
    known, _ = parser.parse_known_args(arguments)
    engine: str | None = known.engine
    return engine


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A pool of measurements; each percentile is one that was measured, never a mean of two."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float

    def cells(self, digits: int = 0) -> tuple[str, ...]:
        """The four figures as a table shows them; dashes when nothing was measured."""
        if not self.count:
            return ("-",) * 4
        return tuple(f"{value:.{digits}f}" for value in (self.p50, self.p95, self.p99, self.max))


def spread(values: Sequence[float]) -> Spread:
    """Percentiles of all values pooled; zeros for none."""
    ranked = sorted(values)
    if not ranked:
        return Spread(count=0, p50=0.0, p95=0.0, p99=0.0, max=0.0)

    def at(share: float) -> float:
        return round(ranked[min(len(ranked) - 1, int(share * len(ranked)))], 3)

    return Spread(count=len(ranked), p50=at(0.50), p95=at(0.95), p99=at(0.99), max=at(1.0))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as needed, the first to the left, figures to the right."""
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in (head, *rows)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line through points, by least squares; 0 for fewer than two."""
    if len(points) < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    square = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / square if square else 0.0
