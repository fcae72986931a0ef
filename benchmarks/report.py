"""What every benchmark shares: interleaved pairs, the machine, a gauge of its noise, and a JSON file of it all.

Figures never fail a run; guards do: a fast wrong answer is no figure.
"""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import msgspec

RESULTS = Path(__file__).parent / "results"
NOISY = 1.5
"""Spread of the gauge above which figures of the run are called noisy."""


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """Two ways to do one job, in nanoseconds a piece."""

    name: str
    a: str
    b: str
    a_ns: float
    b_ns: float
    ratio: float
    """Median of ``b / a`` over interleaved pairs."""
    low: float
    high: float
    """Bootstrap interval of the ratio, 95 %."""
    target: str
    reached: bool
    guard: bool
    """Whether both gave what they must."""


class Report(msgspec.Struct, kw_only=True):
    command: str
    date: str
    machine: dict[str, str]
    gauge: dict[str, float] = msgspec.field(default_factory=dict)
    rows: list[Pair] = msgspec.field(default_factory=list)


def machine() -> dict[str, str]:
    """Processor, cores, system and versions; no name of the host."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    packages = " ".join(f"{name} {version(name)}" for name in ("numpy", "soxr", "webrtcvad-wheels"))
    graphics = gpus()
    told = {"gpu": graphics} if graphics else {}
    return told | {
        "cpu": cpu,
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "python": platform.python_version(),
        "packages": packages,
    }


def gpus() -> str:
    """NVIDIA's GPUs and their driver; empty where there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    asked = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "; ".join(answer.stdout.strip().splitlines()) if answer.returncode == 0 else ""


def begin(command: str) -> Report:
    return Report(command=command, date=datetime.now(UTC).strftime("%Y-%m-%d"), machine=machine())


def timed(job: Callable[[], object]) -> float:
    """CPU seconds of this thread; what other processes do counts less than in wall time."""
    before = time.thread_time()
    job()
    return time.thread_time() - before


def gauge() -> float:
    """Milliseconds of a fixed piece of work, the best of a few: the same before and after on a quiet machine."""

    def work() -> int:
        total = 0
        for i in range(100_000):
            total += i
        return total + len(bytes(4_000_000))

    return 1e3 * min(timed(work) for _ in range(5))


def is_noisy(gauge: Mapping[str, float]) -> bool:
    """Whether the machine was another after the run than before."""
    before, after = gauge["before_ms"], gauge["after_ms"]
    return max(before, after) > NOISY * min(before, after)


def gauge_told(gauge: Mapping[str, float]) -> str:
    """The gauge for people."""
    noisy = " NOISY: do not quote" if is_noisy(gauge) else ""
    return f"gauge {gauge['before_ms']:.2f} ms before, {gauge['after_ms']:.2f} ms after{noisy}"


def pairs(a: Callable[[], object], b: Callable[[], object], *, rounds: int, pieces: int) -> tuple[list[float], ...]:
    """Nanoseconds a piece of ``a`` and ``b``, run A B A B; one round to warm up is not counted."""
    a_ns, b_ns = [], []
    for _ in range(rounds + 1):
        a_ns.append(1e9 * timed(a) / pieces)
        b_ns.append(1e9 * timed(b) / pieces)
    return a_ns[1:], b_ns[1:]


def interval(values: list[float]) -> tuple[float, float]:
    """95 % of the medians of resampled ``values``."""
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(500))
    return medians[12], medians[487]


class Dated(Protocol):
    """A struct of figures."""

    @property
    def date(self) -> str: ...


def write(report: Dated, name: str, folder: Path = RESULTS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{report.date}.json"
    path.write_text(json.dumps(msgspec.to_builtins(report), indent=2) + "\n")
    return path


def show(report: Report) -> None:
    print(f"{report.command}   {report.date}")
    print("   ".join(report.machine.values()))
    for row in report.rows:
        verdict = "guard FAILED" if not row.guard else "reached" if row.reached else "NOT REACHED"
        print(
            f"{row.name:34} {row.a}: {row.a_ns:8.0f} ns   {row.b}: {row.b_ns:8.0f} ns   "
            f"ratio {row.ratio:6.2f} ({row.low:.2f} .. {row.high:.2f})   target {row.target:7} {verdict}"
        )
    print(gauge_told(report.gauge))


def finish(report: Report, name: str, *, keep: bool) -> int:
    """Print, keep, and give the exit status: 1 when a guard failed, whatever the figures."""
    show(report)
    if keep:
        print(f"kept in {os.path.relpath(write(report, name))}")
    return 0 if all(row.guard for row in report.rows) else 1
