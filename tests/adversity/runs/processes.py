"""What the system tells of processes: who descends from whom, and which of them outlived their node."""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

SET_DEATH_SIGNAL = 1
"""For prctl."""


def die_with_the_parent() -> None:
    """Whoever started this process, or kills who did, ends it; forgotten by a change of the user."""
    ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGKILL)


class Seen(NamedTuple):
    """A process that runs."""

    parent: int
    group: int
    began: int
    """Ticks since the machine was started: with its number, what tells it from a later one."""


class Kin:
    """The processes of one node over all its lives: their process groups, and who left these.

    A decoder leads a session of its own, so its node's group does not show it; who descends from the node is therefore
    noted before the node is ended, for afterwards nobody knows.
    """

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._noted: set[tuple[int, int]] = set()

    def begin(self, pid: int) -> None:
        """A life begins, with a process that leads its group."""
        self._groups.add(pid)

    def note(self, pid: int) -> None:
        """Remember whom this life has now."""
        running = _running()
        self._noted |= {(one, running[one].began) for one in _descend(running, pid)}

    def left(self, living: int | None) -> list[int]:
        """Those of ended lives that still run.

        Args:
            living: the process of the life that goes on.
        """
        running = _running()
        family = _descend(running, living) if living is not None else set()
        return [
            pid
            for pid, one in running.items()
            if (one.group in self._groups or (pid, one.began) in self._noted)
            and pid not in family
            and one.group != living
        ]


def _descend(running: dict[int, Seen], pid: int) -> set[int]:
    """A process and all that descend from it."""
    family = {pid} & running.keys()
    while more := {one for one, seen in running.items() if seen.parent in family} - family:
        family |= more
    return family


def _running() -> dict[int, Seen]:
    """All but those that ended and wait for their parents."""
    found = {}
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdigit():
                words = Path(f"/proc/{name}/stat").read_text("utf-8", "replace").rsplit(")", 1)[1].split()
                if words[0] != "Z":
                    found[int(name)] = Seen(parent=int(words[1]), group=int(words[2]), began=int(words[19]))
    return found


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process would survive the signal."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False
