"""An engine's life: its threads, its end when one of them hangs, and how it is built anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from streamsrv import telemetry
from streamsrv.engines.base import WindowEngine
from streamsrv.runtime.scheduling.crew import Batch, Crew

REBUILD_PAUSES_S = (0.0, 5.0, 15.0, 60.0)
"""Pauses before an engine that hung is built anew, and again while it cannot be; the last one repeats."""
CLOSE_S = 10.0
"""How long batches that are being heard may take at the end."""

log = telemetry.logger("scheduler")


class Lifeline:
    """Keeps one engine, and its successors.

    Args:
        engine: its owner may have started it already.
        rebuild: makes it anew; ``None``: a hung one is waited for.
        begun: a crew stands ready, for the first time or anew.
        done: a batch came back in time.
        well: the engine was given up (false), or hears again (true).
    """

    def __init__(
        self,
        engine: WindowEngine,
        *,
        rebuild: Callable[[], WindowEngine] | None,
        begun: Callable[[], None],
        done: Callable[[Batch], None],
        well: Callable[[bool], None],
    ) -> None:
        self.engine = engine
        self.generation = 0
        """Rises when the engine is given up: what it remembered is gone."""
        self._rebuild = rebuild
        self._begun = begun
        self._done = done
        self._well = well
        self._crew: Crew | None = None
        self._retired: set[Crew] = set()
        self._renewing: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._came_back = asyncio.Event()

    @property
    def healthy(self) -> bool:
        """Whether the engine can hear now."""
        return self._renewing is None and self.engine.healthy

    def crew(self) -> Crew | None:
        """The threads, when there is an engine that can hear."""
        if self._renewing is not None:
            return None
        if not self.engine.healthy:
            if self._crew is not None:  # it was well once
                self.give_up("engine.unhealthy")
            return None
        if self._crew is None:
            self._crew = Crew(self.engine, self._finished)
            self._begun()
        return self._crew

    def hung(self, batch: Batch) -> None:
        """A batch is far over its time.  Its thread cannot be ended, so the engine is given up with it."""
        batch.lost = True
        if self._crew is not None and batch in self._crew.running:
            self.give_up("engine.hung")

    def give_up(self, event: str) -> None:
        """This engine hears no more; the next one is on its way."""
        crew, self._crew = self._crew, None
        log.error(event, engine=self.engine.about.name)
        self.generation += 1
        if crew is not None:
            self._retired.add(crew)
            self._retire(crew)
        self._renewing = asyncio.get_running_loop().create_task(self._renew(crew))
        self._well(False)

    async def close(self) -> None:
        """What is being heard may end.  Safe to call twice."""
        if self._renewing is not None:
            self._renewing.cancel()
        crews = [*self._retired, *([self._crew] if self._crew is not None else [])]
        for crew in crews:
            crew.dismiss()
        try:
            async with asyncio.timeout(CLOSE_S):
                while any(not batch.lost for crew in crews for batch in crew.running):
                    await self._someone_back()
        except TimeoutError:
            log.warning("engine.left_hearing", engine=self.engine.about.name)
        if not any(crew.engine is self.engine and crew.running for crew in crews):
            await self.engine.close()

    def _finished(self, crew: Crew, batch: Batch) -> None:
        self._came_back.set()
        if crew is not self._crew:
            self._retire(crew)
        if not batch.lost:
            self._done(batch)

    def _retire(self, crew: Crew) -> None:
        """Let a given-up engine go as soon as its last thread is back; one that never comes keeps its memory."""
        crew.dismiss()
        if not crew.running:
            self._retired.discard(crew)
            if crew.engine is not self.engine:
                self._closing = asyncio.get_running_loop().create_task(crew.engine.close())

    async def _renew(self, crew: Crew | None) -> None:
        """Build the engine anew; or wait until the old one is back."""
        for pause_s in _pauses():
            await asyncio.sleep(pause_s)
            if await (self._back(crew) if self._rebuild is None else self._rebuilt(self._rebuild)):
                break
        self._renewing = None
        log.info("engine.rebuilt", engine=self.engine.about.name)
        self._well(True)

    async def _rebuilt(self, rebuild: Callable[[], WindowEngine]) -> bool:
        old = self.engine
        try:
            engine = rebuild()
            await engine.start()
        except Exception as error:  # whatever stands in its way may be gone later
            log.error("engine.rebuild_failed", error=error)
            return False
        self.engine = engine
        if not any(crew.engine is old and crew.running for crew in self._retired):
            await old.close()
        return True

    async def _back(self, crew: Crew | None) -> bool:
        while crew is not None and crew.running:
            await self._someone_back()
        return self.engine.healthy

    async def _someone_back(self) -> None:
        self._came_back.clear()
        await self._came_back.wait()


def _pauses() -> Iterator[float]:
    yield from REBUILD_PAUSES_S
    while True:
        yield REBUILD_PAUSES_S[-1]
