"""One turn: an interview is leased, read, sent and marked, batch by batch.

What nobody knows to be there is sent again later, with all behind it; a record that is *refused* is sent again alone, a
few times, then parked, and those behind it go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from streamsrv import telemetry
from streamsrv.errors import StoreUnavailable
from streamsrv.runtime.handoff.leases import Leases
from streamsrv.runtime.handoff.numbers import Numbers
from streamsrv.runtime.handoff.patience import Patience
from streamsrv.runtime.handoff.telling import Teller
from streamsrv.runtime.settings import OutboxSettings
from streamsrv.sinks.base import Outcome, Record, Sink
from streamsrv.stores.base import StoredFinal
from streamsrv.stores.handoff import Completion, Deletion, Handoff, Store, Waiting

BATCH_BYTES = 524_288
"""A batch ends before it grows beyond this, but holds one record."""
BATCHES = 8
"""Batches of one interview before the next one's turn."""
MARK_S = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses while the store will not take what was handed; then the batch is sent again some day."""

Ending: TypeAlias = Literal["drained", "more", "elsewhere", "refused", "failed"]
"""How a turn ends: nothing is left; something is; another node relays it; its first record was refused; the sink took
nothing."""
Written: TypeAlias = tuple[Handoff, Record]

log = telemetry.logger("outbox")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What all relays share."""

    store: Store
    settings: OutboxSettings
    numbers: Numbers
    patience: Patience
    node: str
    """This node's name; no other has it."""
    now: Callable[[], float]
    """Monotonic seconds."""
    utc_ms: Callable[[], int]


class Courier:
    """Carries to one sink.

    Args:
        said: told what the sink said, each time, and when it was asked.
        parked: told the interview, when a record of it was parked and the next one's turn comes.
    """

    def __init__(
        self,
        sink: Sink,
        world: World,
        leases: Leases,
        *,
        said: Callable[[Outcome, float], None],
        parked: Callable[[str], None],
    ) -> None:
        self._sink = sink
        self._world = world
        self._store = world.store
        self._leases = leases
        self._said = said
        self._parked = parked

    async def turn(self, interview: str) -> Ending:
        """Hand on what waits of an interview, as far as it goes.

        Raises:
            StoreUnavailable: come back later.
        """
        alone = 0  # so many are sent one by one, because they were refused together
        for _ in range(BATCHES):
            if not await self._leases.hold(interview):
                return "elsewhere"
            limit = 1 if alone else self._world.settings.batch
            waiting = await self._store.waiting(self._sink.name, interview, limit=limit)
            superseded = [one.place for one in waiting.handoffs if one.superseded]
            await self._mark(interview, superseded)
            batch = await self._written(interview, waiting)
            if not await self._leases.hold(interview):  # a store that was slow may have let it run out
                return "elsewhere"
            outcome = await self._send(interview, batch) if batch else Outcome(taken=0)
            if outcome.taken + len(superseded) == len(waiting.handoffs) < limit:
                return "drained"  # of what came meanwhile there is news
            alone = max(0, alone - outcome.taken)
            if outcome.verdict == "refused" and len(batch) > 1:
                alone = len(batch) - outcome.taken
            elif outcome.verdict == "refused":
                if not await self._refused(interview, batch[0][0], outcome.reason):
                    return "refused"
                alone = max(0, alone - 1)
            elif outcome.verdict != "taken":
                return "failed"
        return "more"

    async def _written(self, interview: str, waiting: Waiting) -> Sequence[Written]:
        """What is sent next of what waits: up to ``BATCH_BYTES``; what was refused before goes alone."""
        teller = Teller(interview, waiting.streams)
        batch: list[Written] = []
        size = 0
        for handoff in waiting.handoffs:
            if handoff.superseded:
                continue
            record = await self._record(teller, interview, handoff)
            size += len(record.body)
            if batch and (size > BATCH_BYTES or handoff.attempts or batch[0][0].attempts):
                break
            batch.append((handoff, record))
        return batch

    async def _record(self, teller: Teller, interview: str, handoff: Handoff) -> Record:
        match handoff.what:
            case StoredFinal():
                return teller.final(handoff, handoff.what)
            case Completion():
                streams, finals = await self._store.streams(interview), await self._store.finals(interview)
                return Teller(interview, streams).completed(handoff, handoff.what, finals)
            case Deletion():
                return teller.deleted(handoff, handoff.what)

    async def _send(self, interview: str, batch: Sequence[Written]) -> Outcome:
        """Send, and mark what the sink has."""
        begun = self._world.now()
        outcome = await self._sink.send([record for _, record in batch])
        handed = [handoff for handoff, _ in batch[: outcome.taken]]
        self._world.numbers.sent(self._sink.name, outcome, handed, self._world.utc_ms())
        self._said(outcome, begun)
        await self._mark(interview, [handoff.place for handoff in handed])
        if handed and isinstance(handed[-1].what, Completion | Deletion):
            await self._leases.give_back(interview)
        return outcome

    async def _mark(self, interview: str, places: Sequence[int]) -> None:
        """The sink has them; said again and again while the store is away, for else they are sent twice."""
        if not places:
            return
        for pause_s in MARK_S:
            try:
                return await self._store.handed(self._sink.name, interview, places)
            except StoreUnavailable:
                await asyncio.sleep(pause_s)
        await self._store.handed(self._sink.name, interview, places)

    async def _refused(self, interview: str, handoff: Handoff, reason: str) -> bool:
        """Count a refusal; whether the record is parked now."""
        attempts = handoff.attempts + 1
        dead = attempts >= self._world.settings.max_refusals
        await self._store.refused(
            self._sink.name, interview, handoff.place, reason=reason, dead=dead, now_ms=self._world.utc_ms()
        )
        if dead:
            self._parked(interview)
            log.error(
                "outbox.parked",
                error=reason,
                sink=self._sink.name,
                interview=interview,
                place=handoff.place,
                attempts=attempts,
                next="streamsrv outbox list",
            )
        return dead
