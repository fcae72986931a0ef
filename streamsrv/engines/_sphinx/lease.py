"""One segment's hold on one worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from streamsrv.engines._sphinx import wire
from streamsrv.engines._sphinx.handle import Worker
from streamsrv.errors import EngineLost


class Lease:
    """Ends with ``end``.

    Args:
        worker: held until then.
        give_back: called once, when the worker is free again.
    """

    def __init__(self, worker: Worker, *, give_back: Callable[[Lease], None]) -> None:
        self._worker = worker
        self._give_back = give_back
        self._round: asyncio.Task[wire.Told] | None = None
        self._ended = False
        self.revoked = False
        self.used_at = asyncio.get_running_loop().time()
        """Monotonic seconds."""

    @property
    def busy(self) -> bool:
        """Whether a question is under way."""
        return self._round is not None

    @property
    def worker(self) -> Worker:
        """The worker held."""
        return self._worker

    async def ask(self, ask: wire.Ask, *, within_s: float) -> wire.Told:
        """The worker's answer.  When the caller is cancelled, the question is still brought to its end.

        Raises:
            EngineLost: the worker is lost, or was given to others.
        """
        if self.revoked or self._ended or not self._worker.alive:
            raise EngineLost("the segment's worker is gone", hint="replay the segment")
        task = asyncio.get_running_loop().create_task(self._worker.ask(ask, within_s=within_s))
        self._round = task
        task.add_done_callback(self._answered)
        return await asyncio.shield(task)

    def end(self) -> None:
        """Give the worker back, at once or after the question under way.  Safe to call twice."""
        if self._ended:
            return
        self._ended = True
        if not self.busy:
            self._give_back(self)

    def revoke(self) -> None:
        """Take the worker from a stalled segment."""
        self.revoked = True
        self.end()

    def _answered(self, task: asyncio.Task[wire.Told]) -> None:
        self._round = None
        self.used_at = asyncio.get_running_loop().time()
        if not task.cancelled():
            task.exception()  # told to the caller already, where there is one
        if self._ended:
            self._give_back(self)
