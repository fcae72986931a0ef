"""How much of the machine others use while a window is measured: every figure of a race is worth what the cores are.

The gauge of ``benchmarks.report`` counts its own CPU time and does not see that somebody else has the core.  Linux
only; elsewhere nobody is seen.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

PROC = Path("/proc")
MOST_CORES = 0.15
"""Cores others may use on average; more makes a window noisy."""
_NEVER_BUSY = (3, 4)
"""Idle, and waiting for a disk, in the first line of ``/proc/stat``."""


class Others:
    """Watches from its making on.

    Args:
        proc: where the kernel tells about processes.
    """

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._began, self._busy, self._ours = time.monotonic(), self._busy_ticks(), self._our_ticks()

    def cores(self) -> float:
        """Cores that processes other than this one and its descendants used on average."""
        seconds = (self._busy_ticks() - self._busy - self._our_ticks() + self._ours) / os.sysconf("SC_CLK_TCK")
        return round(max(0.0, seconds / max(1e-9, time.monotonic() - self._began)), 2)

    def _busy_ticks(self) -> int:
        try:
            first = (self._proc / "stat").read_text().split("\n", 1)[0].split()[1:9]
        except OSError:
            return 0
        return sum(int(ticks) for place, ticks in enumerate(first) if place not in _NEVER_BUSY)

    def _our_ticks(self) -> int:
        """Of this process and all under it; those who ended count with their parents."""
        parents: dict[int, int] = {}
        used: dict[int, int] = {}
        for status in self._proc.glob("[0-9]*/stat"):
            try:
                fields = status.read_text().rpartition(")")[2].split()
            except OSError:  # it ended in this moment
                continue
            number = int(status.parent.name)
            parents[number], used[number] = int(fields[1]), sum(map(int, fields[11:15]))
        return sum(ticks for number, ticks in used.items() if _under(os.getpid(), number, parents))


def _under(root: int, number: int, parents: dict[int, int]) -> bool:
    while number in parents:
        if number == root:
            return True
        number = parents[number]
    return False
