"""What a batch costs when threads share a device, and when each has cores of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from streamsrv.engines.base import Abilities, Attention, Hypothesis, Window, WindowEngine
from streamsrv.runtime.scheduling.crew import Batch, Crew
from streamsrv.runtime.scheduling.job import Job, Rank, Task

TAKES_S = 0.1


class Sleepy:
    """Hears by waiting; ``together`` calls wait for each other first."""

    def __init__(self, sharing: int, together: int, threads: int) -> None:
        self.abilities = Abilities(live=False, languages=None, parallel=threads, sharing=sharing)
        self._meeting = threading.Barrier(together)

    def hear(self, windows: Sequence[Window]) -> Sequence[Hypothesis]:
        self._meeting.wait(10)
        time.sleep(TAKES_S)
        return [Hypothesis(words=()) for _ in windows]


async def heard(sharing: int, together: int, threads: int = 2) -> list[Batch]:
    """Batches of one window, so many at once."""
    done: asyncio.Queue[Batch] = asyncio.Queue()
    crew = Crew(cast(WindowEngine, Sleepy(sharing, together, threads)), lambda _, batch: done.put_nowait(batch))
    window = Window(attention=cast(Attention, None), start=0, stop=1, final=False)
    for _ in range(together):
        job = cast(Job, SimpleNamespace(rank=Rank.PARTIAL, size_s=1.0))
        crew.hear(Batch([job], [Task(window=window, samples=b"", position=0)], started=0.0))
    batches = [await done.get() for _ in range(together)]
    crew.dismiss()
    return batches


async def test_alone_on_a_shared_device_a_batch_costs_what_both_could_have_had() -> None:
    (batch,) = await heard(sharing=2, together=1)
    assert batch.cost_s >= 2 * batch.seconds >= 2 * TAKES_S


async def test_two_on_a_shared_device_cost_what_they_take() -> None:
    for batch in await heard(sharing=2, together=2):
        assert batch.cost_s == pytest.approx(batch.seconds, rel=0.5)


@pytest.mark.parametrize("together", [1, 2])
async def test_each_of_two_devices_is_busy_with_two(together: int) -> None:
    for batch in await heard(sharing=2, together=together, threads=4):
        assert batch.cost_s >= 2 * batch.seconds


@pytest.mark.parametrize("together", [1, 2])
async def test_threads_with_cores_of_their_own_cost_what_they_take(together: int) -> None:
    for batch in await heard(sharing=1, together=together):
        assert batch.cost_s == batch.seconds
