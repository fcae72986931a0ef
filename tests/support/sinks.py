"""A sink that takes what it is given, or says what a test told it to say."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

from streamsrv.sinks import events
from streamsrv.sinks.base import Outcome, Record, taken

Answer: TypeAlias = Callable[[Sequence[Record]], Outcome]


class ScriptedSink:
    """``script`` holds answers to the next batches; when it is empty, everything is taken.

    ``held`` while it is set: batches wait.
    """

    def __init__(self, name: str = "kafka") -> None:
        self._name = name
        self.script: deque[Answer] = deque()
        self.always: Answer = taken
        self.batches: list[tuple[Record, ...]] = []
        self.got: list[Record] = []
        """What it took, in order."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()
        self.busy = 0
        self.most = 0
        """Batches that were under way at once."""
        self.closed = False

    @property
    def name(self) -> str:
        return self._name

    async def send(self, batch: Sequence[Record]) -> Outcome:
        self.batches.append(tuple(batch))
        self.asked.set()
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            await self.gate.wait()
            outcome = (self.script.popleft() if self.script else self.always)(batch)
        finally:
            self.busy -= 1
        self.got += batch[: outcome.taken]
        return outcome

    async def close(self) -> None:
        self.closed = True

    def events(self, interview: str | None = None) -> list[events.AnyEvent]:
        """What it took."""
        return [events.decode(one.body) for one in self.got if interview in (None, one.interview)]

    def segments(self, interview: str = "talk") -> list[int]:
        return [one.segment for one in self.events(interview) if isinstance(one, events.TranscriptFinal)]
