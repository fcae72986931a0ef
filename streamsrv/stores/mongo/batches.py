"""Calls that wait together go to the server together: one trip for many.

While one batch is under way the next gathers, so a lone call waits for nobody and many calls cost little each.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from streamsrv.errors import StoreUnavailable
from streamsrv.stores.mongo.failures import RETRY_AFTER_S

T = TypeVar("T")
R = TypeVar("R")

MAX_BATCH = 500
"""Calls in one batch; what waits beyond goes with the next, so that no message to the server grows too large."""


class Batches(Generic[T, R]):
    """Gathers calls.

    Args:
        do: does a batch, in order; answers each with its result or its error.  What it raises is raised in all.
        most: calls that may wait; more are refused with ``StoreUnavailable``.
    """

    def __init__(self, do: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]], *, most: int) -> None:
        self._do = do
        self._most = most
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._task: asyncio.Task[None] | None = None

    def put(self, call: T) -> asyncio.Future[R]:
        """Take a call.  It is done even when the caller stops waiting.

        Raises:
            StoreUnavailable: too many wait; nothing was taken.
        """
        if len(self._waiting) >= self._most:
            raise StoreUnavailable(f"{self._most} writes wait for MongoDB already", retry_after_s=RETRY_AFTER_S)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((call, future))
        if self._task is None:
            self._task = loop.create_task(self._work())
        return future

    @property
    def idle(self) -> bool:
        """Whether no batch follows the one under way, so far."""
        return not self._waiting

    async def finish(self) -> None:
        """Wait until all that was taken is done."""
        while self._task is not None:
            await asyncio.shield(self._task)

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._one([self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))])
        finally:
            self._task = None

    async def _one(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        answers: Sequence[R | Exception]
        try:
            answers = await self._do([call for call, _ in batch])
        except Exception as error:  # whatever it is, those who wait must hear of it
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
