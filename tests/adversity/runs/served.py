"""The server of a run: ``streamsrv ...`` that tells where it is, whose clock can jump, and which waits less long.

The nursery forks it.  On SIGUSR1 it writes its threads and tasks behind ``FILE``.stacks, on SIGUSR2 its wall clock
jumps to the offset in ``FILE``.offset, in seconds.
"""

from __future__ import annotations

import asyncio
import faulthandler
import signal
import time
from pathlib import Path
from types import FrameType
from typing import TextIO

from tests.adversity.runs import strict
from tests.adversity.runs.odds import FASTER

TELL = signal.SIGUSR1
JUMP = signal.SIGUSR2
DEEPEST = 12
"""Frames written of each task."""
LOOK_S = 10.0 / FASTER
"""Pauses between two looks at what others left or did, ten seconds in earnest."""
LOOK_DEGRADED_S = 2.0 / FASTER
"""The same while Redis is away, two seconds in earnest."""
HEARTBEAT_S = 15.0 / FASTER
"""A peer that is silent for so long is asked whether it is there: fifteen seconds in earnest."""


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


_offset = 0


def bend_clock() -> None:
    """The wall clock can jump from now on."""
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + _offset
    time.time_ns = lambda: real_ns() + _offset * 10**9


def _jump_when_asked(path: Path) -> None:
    def jump(number: int, frame: FrameType | None) -> None:
        global _offset
        _offset = int(path.read_text("ascii"))

    signal.signal(JUMP, jump)


def main(path: str, *words: str) -> int:
    """Be the server: see above."""
    _tell_when_asked(Path(f"{path}.stacks"))
    _jump_when_asked(Path(f"{path}.offset"))
    strict.confine()
    from streamsrv.cli import main as serve
    from streamsrv.runtime import neighbours, orphans
    from streamsrv.server import app

    app.HEARTBEAT_S = HEARTBEAT_S
    orphans.LOOK_S = neighbours.CHECK_EVERY_S = LOOK_S  # type: ignore[misc]
    neighbours.CHECK_DEGRADED_S = LOOK_DEGRADED_S  # type: ignore[misc]
    return serve(words)
