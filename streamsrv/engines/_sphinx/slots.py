"""Which session's segment has which worker: grows on demand, shares fairly, shrinks when idle."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from streamsrv.engines._sphinx.handle import Worker
from streamsrv.engines._sphinx.lease import Lease
from streamsrv.errors import EngineBusy

STALLED_S: Final = 5.0
"""A segment that sent nothing for so long gives its worker up when others wait; it is lost, to be replayed."""
RETRY_FORK_S: Final = 1.0
"""Pause after a fork that failed."""


Queue: TypeAlias = deque[asyncio.Future[Lease]]


class Slots:
    """All workers.

    Args:
        fork: makes one more.
        most: workers at most, at least 1.
        waiting_most: segments that may wait; one more is refused with ``EngineBusy``.
        idle_s: seconds after which a worker nobody needs is retired; one always stays.
        hopeless: whether no worker can be had in the foreseeable future.
    """

    def __init__(
        self,
        *,
        fork: Callable[[], Awaitable[Worker]],
        most: int,
        waiting_most: int,
        idle_s: float,
        hopeless: Callable[[], bool],
    ) -> None:
        self._fork = fork
        self._most = most
        self._waiting_most = waiting_most
        self._idle_s = idle_s
        self._hopeless = hopeless
        self._workers: set[Worker] = set()
        self._free: dict[Worker, float] = {}
        self._leases: set[Lease] = set()
        self._finals: Queue = deque()
        self._partials: Queue = deque()
        self._queues = (self._finals, self._partials)
        """In the order in which they are served."""
        self._forking: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False

    @staticmethod
    def now() -> float:
        """Monotonic seconds."""
        return asyncio.get_running_loop().time()

    @property
    def workers(self) -> tuple[Worker, ...]:
        """All that live."""
        return tuple(self._workers)

    @property
    def waiting(self) -> int:
        """Segments that wait for a worker."""
        return sum(not waiter.done() for queue in self._queues for waiter in queue)

    async def lease(self, *, final: bool) -> Lease:
        """A worker, when it is this segment's turn: first come, first served, but finals first.

        Raises:
            EngineBusy: too many wait, or there will be no worker soon.
        """
        if self._hopeless():
            raise EngineBusy("the speech engine does not start", retry_after_s=5.0)
        if self.waiting >= self._waiting_most:
            raise EngineBusy(f"{self._waiting_most} segments wait for the speech engine", retry_after_s=2.0)
        waiter: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        (self._finals if final else self._partials).append(waiter)
        self.serve()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().end()
            raise

    def give_back(self, lease: Lease) -> None:
        """The lease is over."""
        self._leases.discard(lease)
        if lease.worker.alive:
            self._free[lease.worker] = self.now()
        self.serve()

    def serve(self) -> None:
        """Give free workers to those who wait; fork more where that helps."""
        while self._free and (waiter := self._next()) is not None:
            worker, _since = self._free.popitem()  # the newest: its pages are warm, and the others may retire
            lease = Lease(worker, give_back=self.give_back)
            self._leases.add(lease)
            waiter.set_result(lease)
        wanted = min(self.waiting, self._most - len(self._workers)) - len(self._forking)
        for _ in range(0 if self._closed else max(wanted, 0)):
            self._start_fork()
        self._set_alarm()

    def refuse_all(self) -> None:
        """Nobody will be served in the foreseeable future."""
        for queue in self._queues:
            while queue:
                waiter = queue.popleft()
                if not waiter.done():
                    waiter.set_exception(EngineBusy("the speech engine does not start", retry_after_s=5.0))

    def warm(self) -> None:
        """See that there is one worker at least."""
        if not self._workers and not self._forking and not self._closed:
            self._start_fork()

    def close(self) -> None:
        """Kill all workers, refuse all who wait.  Safe to call twice."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        for task in self._forking:
            task.cancel()
        for worker in self.workers:
            worker.kill()
        self.refuse_all()

    # --- inside ----------------------------------------------------------------------------------------------

    def _next(self) -> asyncio.Future[Lease] | None:
        for queue in self._queues:
            while queue:
                waiter = queue.popleft()
                if not waiter.done():
                    return waiter
        return None

    def _start_fork(self) -> None:
        task = asyncio.get_running_loop().create_task(self._add(), name="sphinx.fork")
        self._forking.add(task)
        task.add_done_callback(self._forked)

    async def _add(self) -> None:
        try:
            worker = await self._fork()
        except EngineBusy:
            return
        worker.on_death = self._died
        self._workers.add(worker)
        if worker.alive:
            self._free[worker] = self.now()
        else:
            self._died(worker)

    def _forked(self, task: asyncio.Task[None]) -> None:
        self._forking.discard(task)
        if self._closed:
            for worker in self.workers:
                worker.kill()
        elif self._free:
            self.serve()
        else:
            self._set_alarm()

    def _died(self, worker: Worker) -> None:
        self._workers.discard(worker)
        self._free.pop(worker, None)
        if not self._closed:
            self.serve()

    def _set_alarm(self) -> None:
        """Wake up later: to try again for those who wait, to retire those who idle."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._closed:
            return
        if self.waiting:
            delay = RETRY_FORK_S
        elif len(self._workers) > 1 and self._free:
            delay = max(min(self._free.values()) + self._idle_s - self.now(), 0.05)
        else:
            return
        self._alarm = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        now = self.now()
        if self._hopeless():
            self.refuse_all()
        elif self.waiting:
            self._revoke_stalled(now)
        else:
            for worker in [worker for worker, since in self._free.items() if now - since >= self._idle_s]:
                if len(self._workers) > 1:
                    worker.kill()
        self.serve()

    def _revoke_stalled(self, now: float) -> None:
        stalled = [lease for lease in self._leases if not lease.busy and now - lease.used_at >= STALLED_S]
        for lease in sorted(stalled, key=lambda lease: lease.used_at)[: self.waiting]:
            lease.revoke()
