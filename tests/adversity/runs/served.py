"""The server of a run: ``streamsrv ...`` that tells where it is, whose clock can jump, which waits less long, and which
does not outlive the run.

``python -m tests.adversity.runs.served FILE ...``: on SIGUSR1 it writes its threads and tasks behind ``FILE``.stacks,
on SIGUSR2 its wall clock jumps to the offset in ``FILE``.offset, in seconds.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TextIO

TELL = signal.SIGUSR1
JUMP = signal.SIGUSR2
SET_DEATH_SIGNAL = 1
"""Linux's ``PR_SET_PDEATHSIG``."""
DEEPEST = 12
"""Frames written of each task."""
LOOK_S = 1.25
"""Pauses between two looks at what others left or did, ten seconds in earnest: an eighth, as all times of a run."""


def write_tasks(file: TextIO) -> None:
    """Write the tasks of the running event loop; those it waits for stand in their stacks."""
    file.write(f"===== tasks at {time.strftime('%H:%M:%S')}\n")
    for task in asyncio.all_tasks():
        task.print_stack(limit=DEEPEST, file=file)
    file.flush()


def _tell_when_asked(path: Path) -> None:
    """The threads, wherever they are stuck, and then the tasks, when the event loop still turns."""
    file = path.open("a", encoding="utf-8")

    def tell(number: int, frame: FrameType | None) -> None:
        try:
            write_tasks(file)
        except RuntimeError as none_runs:
            file.write(f"no tasks: {none_runs}\n")

    signal.signal(TELL, tell)
    faulthandler.register(TELL, file, all_threads=True, chain=True)


def _jump_when_asked(path: Path) -> None:
    real, real_ns = time.time, time.time_ns
    offset = 0

    def jump(number: int, frame: FrameType | None) -> None:
        nonlocal offset
        offset = int(path.read_text("ascii"))

    time.time = lambda: real() + offset
    time.time_ns = lambda: real_ns() + offset * 10**9
    signal.signal(JUMP, jump)


def _main(path: str, *words: str) -> int:
    ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGKILL)  # whoever kills the run kills its nodes
    _tell_when_asked(Path(f"{path}.stacks"))
    _jump_when_asked(Path(f"{path}.offset"))  # before anybody takes the clock's functions by name
    from streamsrv.cli import main
    from streamsrv.runtime import neighbours, streams

    streams.LOOK_S = neighbours.CHECK_EVERY_S = LOOK_S  # type: ignore[misc]
    return main(words)


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
