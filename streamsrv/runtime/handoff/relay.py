"""The way to one sink: whose turn it is, how many at once, and when to pause.

When nobody knows whether a sink took a batch, or it is away, the interview rests and the whole sink pauses, each longer
every time, without end; until something succeeds one batch at a time is tried, of another interview each time.  So a
record that breaks its receiver holds up its own interview only, and a sink that is down nobody else.
"""

from __future__ import annotations

import asyncio

from streamsrv import telemetry
from streamsrv.errors import StoreUnavailable
from streamsrv.runtime.handoff.book import Book
from streamsrv.runtime.handoff.courier import Courier, Ending, World
from streamsrv.runtime.handoff.leases import Leases
from streamsrv.sinks.base import Outcome, Sink

PAGE = 500
"""Interviews asked for in one look into the store; the next look follows when few are left."""
LOW = 64
OUTAGE = 3
"""Failures in a row that make an outage: it is logged, and at its end nobody rests any longer."""

log = telemetry.logger("outbox")


class Relay:
    """Relays to one sink.  ``run`` it in a task; ``stop`` it, then cancel that."""

    def __init__(self, sink: Sink, world: World) -> None:
        self.name = sink.name
        self._settings = world.settings
        self._world = world
        self._now = world.now
        self._book = Book()
        self._leases = Leases(
            world.store,
            sink.name,
            node=world.node,
            lease_s=world.settings.lease_s,
            now=world.now,
            utc_ms=world.utc_ms,
        )
        self._courier = Courier(sink, world, self._leases, said=self._said, parked=self._book.forgive)
        self._turns: set[asyncio.Task[None]] = set()
        self._look: asyncio.Task[None] | None = None
        self._looks_at = world.now()
        self._behind = ""
        """The name up to which the store was looked through."""
        self._from_the_start = False
        """A look is under way, and may have passed what is looked for; another one follows it."""
        self._failures = 0
        """Of the sink, in a row."""
        self._pauses_until = world.now()
        self._failed_at = world.now()
        self._store_away = False
        self._stopping = False
        self._news = asyncio.Event()
        self._turned = asyncio.Event()

    @property
    def troubled(self) -> bool:
        """Whether the last thing heard of the sink was a failure."""
        return self._failures > 0

    async def settle(self) -> None:
        """Wait until all that is known of was handed on, or cannot be at the moment."""
        while not self._book.idle and not self.troubled:
            self._turned.clear()
            await self._turned.wait()

    def heard(self, interview: str) -> None:
        """Something of it was stored."""
        self._book.heard(interview)
        self._news.set()

    def look_again(self) -> None:
        """Somebody made dead letters pending: those at work go on after their turn, others are looked for."""
        self._book.found_at_work()
        self._from_the_start = self._look is not None or bool(self._behind)
        self._looks_at = self._now()
        self._news.set()

    async def run(self) -> None:
        """Relay until cancelled."""
        while True:
            self._news.clear()
            self._begin_turns()
            try:
                async with asyncio.timeout(self._wait_s()):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def stop(self, within_s: float) -> None:
        """Begin nothing, let what is under way finish, cut it after ``within_s``; give the leases back."""
        self._stopping = True
        if tasks := {*self._turns, *([self._look] if self._look is not None else [])}:
            _, late = await asyncio.wait(tasks, timeout=within_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._leases.give_all_back()

    # --- whose turn it is ------------------------------------------------------------------------------------------

    def _wait_s(self) -> float | None:
        """How long nothing is to be done unless there is news; ``None``: for ever."""
        looks_at = self._looks_at if self._look is None and self._book.ready < LOW else None
        turns_at = self._book.wakes_at()
        if self._book.ready:
            turns_at = None if len(self._turns) >= self._at_once() else self._pauses_until
        elif turns_at is not None:
            turns_at = max(turns_at, self._pauses_until)
        moments = [at for at in (looks_at, turns_at) if at is not None]
        return max(0.001, min(moments) - self._now()) if moments else None

    def _at_once(self) -> int:
        return 1 if self.troubled else self._settings.interviews_at_once

    def _begin_turns(self) -> None:
        now = self._now()
        if self._stopping:
            return
        if self._look is None and self._looks_at <= now and self._book.ready < LOW:
            self._look = asyncio.create_task(self._look_into_store())
        if now < self._pauses_until:
            return
        while len(self._turns) < self._at_once() and (interview := self._book.take(now)) is not None:
            turn = asyncio.create_task(self._turn(interview))
            self._turns.add(turn)
            turn.add_done_callback(self._turn_over)

    def _turn_over(self, turn: asyncio.Task[None]) -> None:
        self._turns.discard(turn)
        self._news.set()
        self._turned.set()

    async def _look_into_store(self) -> None:
        """Find what no event told of: after a start, from other nodes, of those that were forgotten."""
        pause_s = self._settings.poll_s
        try:
            found = await self._world.store.due(self.name, after=self._behind, limit=PAGE)
            self._book.found(found)
            self._behind = found[-1] if len(found) == PAGE else ""
            await self._leases.drop_expired()
            if self._behind or self._from_the_start:
                pause_s = 0.0
                self._from_the_start = bool(self._behind) and self._from_the_start
        except StoreUnavailable as error:
            self._lost_store(error)
        finally:
            self._look = None
            self._looks_at = self._now() + pause_s
            self._news.set()

    # --- one turn --------------------------------------------------------------------------------------------------

    async def _turn(self, interview: str) -> None:
        try:
            self._over(interview, await self._courier.turn(interview))
        except StoreUnavailable as error:
            self._lost_store(error)
            self._rest(interview)
        except Exception as error:  # a mistake of ours must not end the relay
            log.error("outbox.failed", error=error, sink=self.name, interview=interview)
            self._rest(interview)

    def _lost_store(self, error: StoreUnavailable) -> None:
        if not self._store_away:
            log.warning("outbox.store_away", error=error, sink=self.name)
        self._store_away = True

    def _over(self, interview: str, ending: Ending) -> None:
        if self._store_away:
            self._store_away = False
            self._book.rouse_all()
        match ending:
            case "drained" | "more":
                self._book.done(interview, more=ending == "more")
            case "elsewhere":  # should the other node die, its lease stands still
                self._book.rest(interview, self._now() + min(self._settings.poll_s, self._settings.lease_s / 2))
            case "refused" | "failed":
                self._rest(interview)

    def _rest(self, interview: str) -> None:
        pause_s = self._world.patience.pause_s(self._book.failed(interview))
        self._book.rest(interview, self._now() + pause_s)

    def _said(self, outcome: Outcome, begun: float) -> None:
        """Count the sink's own failures, in a row; a refusal is a sign of life.

        Args:
            begun: when it was asked; those asked side by side fail side by side, which counts once.
        """
        if outcome.verdict in ("taken", "refused"):
            if self._failures >= OUTAGE:
                log.info("outbox.back", sink=self.name, failures=self._failures)
                self._book.rouse_all()
            self._failures = 0
            return
        if self._failures and begun < self._failed_at:
            return
        self._failed_at = self._now()
        self._failures += 1
        pause_s = self._world.patience.pause_s(self._failures, asked_s=outcome.retry_after_s)
        self._pauses_until = self._now() + pause_s
        if self._failures == OUTAGE:
            log.warning("outbox.away", error=outcome.reason, sink=self.name, verdict=outcome.verdict)
