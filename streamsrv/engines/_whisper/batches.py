"""Which tasks are decoded together, and what becomes of them when a batch fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from streamsrv.engines._whisper.windows import Task
from streamsrv.errors import EngineBusy, EngineFailed

Job: TypeAlias = Callable[[Sequence[Task]], None]
"""Sets the answer of each task, or raises for all."""


def alike(tasks: Iterable[Task], likeness: Callable[[Task], tuple[int, ...]], most: int) -> list[list[Task]]:
    """Tasks that may share a batch, at most ``most`` in each.

    One batch needs features of one length and ``<|startoftranscript|>`` at one place in its prompts.
    """
    groups: dict[tuple[int, ...], list[Task]] = {}
    for task in tasks:
        groups.setdefault(likeness(task), []).append(task)
    return [group[at : at + most] for group in groups.values() for at in range(0, len(group), most)]


def survive(tasks: Sequence[Task], job: Job, out_of_memory: Callable[[Exception], bool]) -> None:
    """Answer tasks together; when that fails, in halves, so that only what fails by itself fails.

    A window that does not fit into memory even alone is ``EngineBusy``: later there may be room.
    """
    try:
        job(tasks)
    except (RuntimeError, ValueError, MemoryError) as failure:
        if len(tasks) > 1:
            middle = len(tasks) // 2
            survive(tasks[:middle], job, out_of_memory)
            survive(tasks[middle:], job, out_of_memory)
        elif out_of_memory(failure):
            tasks[0].answer = EngineBusy("there is not enough memory for one window")
        else:
            tasks[0].answer = EngineFailed(f"Whisper failed on a window: {failure}")
