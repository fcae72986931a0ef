"""Jobs whose record the store was asked for and did not confirm: whether it has one, nobody knows yet.

Whoever sent such a file was told that it was not taken.  A record that was made all the same would wait for ever, its
file being gone, so it is cancelled once the store answers again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from streamsrv import telemetry
from streamsrv.errors import NotFound, StoreUnavailable
from streamsrv.stores.base import OPEN_JOBS, Job, TranscriptStore

LOOK_S: Final = 1.0
"""Pause between two looks into the store."""
LATE_S: Final = 60.0
"""A write that got lost on its way may still arrive for so long."""
MOST: Final = 1_000
"""Jobs that are looked for; a restart finds those beyond, whose files are gone, and ends them."""

log = telemetry.logger("jobs")


class Unsure:
    """Looks for them in the background, while there are any.

    Args:
        utc_ms: the wall clock.
    """

    def __init__(self, store: TranscriptStore, utc_ms: Callable[[], int]) -> None:
        self._store = store
        self._utc_ms = utc_ms
        self._until: dict[str, float] = {}
        """Jobs, and when they are looked for no longer, seconds of the event loop."""
        self._task: asyncio.Task[None] | None = None

    def add(self, job: Job) -> None:
        """Its record was asked for, and no answer came."""
        if len(self._until) < MOST:
            self._until[job.id] = asyncio.get_running_loop().time() + LATE_S
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="unsure jobs")

    async def close(self) -> None:
        """What is left is found at the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._until:
            await asyncio.sleep(LOOK_S)
            for name, until in tuple(self._until.items()):
                asked_at = loop.time()
                try:
                    cleared = await self._cleared(name)
                except StoreUnavailable:
                    break
                if cleared or asked_at > until:
                    del self._until[name]
        self._task = None

    async def _cleared(self, name: str) -> bool:
        """Whether nothing of it waits any more, for sure."""
        job = await self._store.job(name)
        if job is None:
            return False
        if job.state in OPEN_JOBS:
            try:
                await self._store.keep_job(msgspec.structs.replace(job, state="cancelled", ended_ms=self._utc_ms()))
            except NotFound:  # deleted meanwhile, with its interview
                return True
            log.info("job.ended", job=name, interview=job.interview, state="cancelled", audio_ms=0)
        return True
