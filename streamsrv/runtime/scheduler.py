"""One window engine, many sessions: who is heard when, with whom, and what becomes of it when it fails.

The policy is pure and lives in ``scheduling``; here it meets the event loop, the engine's threads and the clock.
Everything but the hearing itself runs on the loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

from streamsrv import telemetry
from streamsrv.engines.base import PLAIN, Abilities, About, Attention, Hypothesis, WindowEngine, Wishes
from streamsrv.errors import EngineBusy, EngineLost
from streamsrv.runtime.ear import Trouble
from streamsrv.runtime.scheduling.cost import CostBook
from streamsrv.runtime.scheduling.crew import Batch, Crew, Outcome
from streamsrv.runtime.scheduling.job import Job, Patron, Rank, Task
from streamsrv.runtime.scheduling.lifeline import Lifeline
from streamsrv.runtime.scheduling.pace import Load, Pace
from streamsrv.runtime.scheduling.waiting import Waiting

BUSY_PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses while an engine is too busy for a final; the last one repeats.  Partials are not repeated."""
MAX_TRIES = 2
"""Batches a final may break: the second one it had for itself alone."""
HANG_S = 30.0
"""A batch that takes longer than this, and ``HANG_FACTOR`` times longer than expected, will never come back."""
HANG_FACTOR = 10.0
UPDATE_S = 0.25
"""How often the pace is set."""
ANSWERS_PER_TURN = 8
"""Answers handed over before the event loop gets a turn."""
TOLD_STRETCH = 1.4
"""Sessions are told when partials come so many times less often than promised: those let in at a share of speech of 0.6
who now speak all the time ..."""
UNTOLD_STRETCH = 1.15
"""... and again when they come more often than this."""

log = telemetry.logger("scheduler")


class Scheduler:
    """Hears for the sessions of one window engine.

    Args:
        engine: hears; its owner may have started it already.
        metrics: the server's numbers.
        final_within_s: when a final is late.
        rebuild: makes the engine anew after it hung; ``None``: it is waited for.
        hang_s: see ``HANG_S``.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        engine: WindowEngine,
        metrics: telemetry.Metrics,
        *,
        final_within_s: float = 1.0,
        rebuild: Callable[[], WindowEngine] | None = None,
        hang_s: float = HANG_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._final_within_s = final_within_s
        self._hang_s = hang_s
        self._clock = clock
        self._waiting = Waiting()
        self._line = Lifeline(engine, rebuild=rebuild, begun=self._learn, done=self._done, well=self._well)
        self._patrons: dict[Patron, None] = {}
        self._busy: set[object] = set()
        self._troubles: set[Trouble] = set()
        self._pumping = False
        self._closed = False
        self._alarm: asyncio.TimerHandle | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._learn()

    # --- as an engine -------------------------------------------------------------------------------------------

    @property
    def abilities(self) -> Abilities:
        return self._line.engine.abilities

    @property
    def about(self) -> About:
        return self._line.engine.about

    @property
    def healthy(self) -> bool:
        """Whether it can hear now."""
        return self._line.healthy

    @property
    def generation(self) -> int:
        """Rises when the engine is given up: what it remembered is gone."""
        return self._line.generation

    async def start(self) -> None:
        """Load the engine; questions may wait already.

        Raises:
            SetupError: it cannot work here; the hint holds the remedy.
        """
        await self._line.engine.start()
        self._stir()

    async def close(self) -> None:
        """Let go of everything; what is being heard may end.  Safe to call twice."""
        self._closed = True
        for timer in (self._alarm, self._ticker):
            if timer is not None:
                timer.cancel()
        await self._line.close()

    # --- what sessions call -------------------------------------------------------------------------------------

    def enter(self, patron: Patron) -> None:
        """A session is here; it is told what is wrong, also what is wrong already."""
        self._patrons[patron] = None
        if self._troubles:
            asyncio.get_running_loop().call_soon(self._tell_newcomer, patron)
        if self._ticker is None and not self._closed:
            self._ticker = asyncio.get_running_loop().call_later(UPDATE_S, self._tick)

    def leave(self, patron: Patron) -> None:
        """It is gone; its jobs were dropped."""
        self._patrons.pop(patron, None)

    def attend(self, *, language: str | None, wishes: Wishes = PLAIN) -> Attention:
        """What the engine shall remember of one channel.

        Raises:
            UnsupportedLanguage: says which it knows.
            BadRequest: it cannot fulfil these wishes.
            EngineBusy: it is not loaded yet.
        """
        return self._line.engine.attend(
            language=language, task=wishes.task, prompt=wishes.prompt, hotwords=wishes.hotwords
        )

    def put(self, job: Job) -> None:
        """Take a question; never waits."""
        self._waiting.put(job)
        if job.rank is Rank.PARTIAL:
            self._pace.asked(job.lane, self._clock())
        else:
            self._pace.quiet(job.lane)
        self._stir()

    def drop(self, job: Job) -> None:
        """Its answer is no longer wanted; harmless when it does not wait."""
        self._waiting.drop(job)

    def quiet(self, lane: object) -> None:
        """Nobody speaks on this lane."""
        self._pace.quiet(lane)

    def waits(self, job: Job) -> bool:
        """Whether its turn has not come yet."""
        return job in self._waiting

    def hears(self, lane: object) -> bool:
        """Whether a thread is at this lane."""
        return lane in self._busy

    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock()

    @property
    def every_s(self) -> float:
        """Seconds between two partials that the engine bears now."""
        return self._pace.every_s

    @property
    def load(self) -> Load:
        """What is measured now."""
        oldest = self._waiting.oldest(Rank.FINAL)
        return Load(
            sessions=self._pace.sessions(),
            load=self._pace.load,
            stretch=self._pace.stretch,
            share=self._pace.share,
            oldest_final_s=0.0 if oldest is None else max(0.0, self._clock() - oldest),
            within_s=self._final_within_s,
        )

    @property
    def waiting(self) -> int:
        """Questions that wait."""
        return len(self._waiting)

    # --- from the queue to the threads --------------------------------------------------------------------------

    def _learn(self) -> None:
        """Share out the time of this engine; what it costs is not known yet."""
        abilities = self.abilities
        self._costs = CostBook(abilities.batch)
        self._waiting.suit(self._costs, batch=abilities.batch, every_s=abilities.partial_every_s)
        self._pace = Pace(
            self._costs,
            every_s=abilities.partial_every_s,
            floor_s=abilities.floor_s,
            budget_s=self._waiting.budget_s,
            parallel=abilities.parallel,
        )

    def _stir(self) -> None:
        """Look at the queue soon: what comes in the same turn of the loop is looked at together."""
        if not self._pumping and not self._closed:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        crew = None if self._closed else self._line.crew()
        now = self._clock()
        while crew is not None and crew.idle > 0:
            jobs = self._waiting.take(now, free=crew.idle, busy=self._busy)
            if not jobs:
                self._wake(now)
                return
            self._dispatch(crew, jobs, now)

    def _wake(self, now: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        at = self._waiting.wake_at(now, busy=self._busy)
        if at is not None:
            self._alarm = asyncio.get_running_loop().call_later(max(0.0, at - now), self._stir)

    def _dispatch(self, crew: Crew, jobs: list[Job], now: float) -> None:
        ready = [(job, task) for job in jobs if (task := self._ready(job)) is not None]
        if not ready:
            return
        batch = Batch([job for job, _ in ready], [task for _, task in ready], started=now)
        self._busy.update(job.lane for job in batch.jobs)
        expected = self._costs.seconds(final=batch.final, size_s=batch.size_s, count=len(ready)) or 0.0
        limit = max(self._hang_s, HANG_FACTOR * expected)
        batch.alarm = asyncio.get_running_loop().call_later(limit, self._hung, batch)
        crew.hear(batch)

    def _ready(self, job: Job) -> Task | None:
        try:
            task = job.patron.ready(job)
        except Exception as error:  # one session's fault must not hold up the others
            log.error("session.unready", error=error, segment=job.segment)
            self._answer(job, None)
            return None
        if task is not None and job.rank is Rank.PARTIAL:
            self._pace.asked(job.lane, self._clock())
        return task

    # --- from the threads to the sessions -----------------------------------------------------------------------

    def _done(self, batch: Batch) -> None:
        """A batch came back in time."""
        if batch.alarm is not None:
            batch.alarm.cancel()
        self._busy.difference_update(job.lane for job in batch.jobs)
        self._observe(batch)
        self._hand_over(zip(batch.jobs, batch.outcomes, strict=True))

    def _observe(self, batch: Batch) -> None:
        count = len(batch.jobs)
        heard = all(isinstance(outcome, Hypothesis) for outcome in batch.outcomes)
        if heard:
            self._costs.observe(final=batch.final, size_s=batch.size_s, count=count, seconds=batch.cost_s)
            self._waiting.went_well(count)
        elif count > 1 and any(isinstance(outcome, EngineBusy) for outcome in batch.outcomes):
            self._waiting.halve()
        if batch.rank is Rank.FINAL:
            self._pace.finals(batch.cost_s)
        elif batch.rank is Rank.PARTIAL:
            self._pace.partials(batch.size_s, count)
        self._metrics.window_batch.observe(count)
        self._metrics.window_seconds.labels(batch.rank.name.lower()).observe(batch.seconds)

    def _hand_over(self, answers: Iterator[tuple[Job, Outcome]]) -> None:
        """A few answers each turn of the loop; then the next batch, so that those who ask again can join it."""
        now = self._clock()
        for _ in range(ANSWERS_PER_TURN):
            pair = next(answers, None)
            if pair is None:
                self._stir()
                return
            self._settle(*pair, now)
        asyncio.get_running_loop().call_soon(self._hand_over, answers)

    def _settle(self, job: Job, outcome: Outcome, now: float) -> None:
        if isinstance(outcome, Hypothesis):
            self._heard(job, outcome, now)
        elif job.rank is Rank.PARTIAL:  # the next one is on its way
            log.debug("engine.partial_failed", error=outcome, segment=job.segment)
            self._answer(job, None)
        elif isinstance(outcome, EngineBusy):
            job.not_before = now + BUSY_PAUSES_S[min(job.busy, len(BUSY_PAUSES_S) - 1)]
            job.busy += 1
            job.patron.told("engine", True)
            self._again(job)
        elif isinstance(outcome, EngineLost) and job.tries + 1 < MAX_TRIES:
            job.tries += 1
            job.alone = True
            self._metrics.engine_replays.inc()
            log.warning("engine.replay", error=outcome, segment=job.segment, tries=job.tries)
            self._again(job)
        else:
            log.warning("engine.segment_failed", error=outcome, segment=job.segment)
            self._answer(job, None)

    def _again(self, job: Job) -> None:
        if job.patron in self._patrons:
            self._waiting.put(job)
            self._stir()
        else:
            self._answer(job, None)

    def _heard(self, job: Job, heard: Hypothesis, now: float) -> None:
        if job.busy:
            job.patron.told("engine", False)
        if job.rank is Rank.FINAL:
            self._pace.final_answered((now - job.asked_at) / self._final_within_s, now)
        self._answer(job, heard)

    def _answer(self, job: Job, heard: Hypothesis | None) -> None:
        try:
            job.patron.heard(job, heard)
        except Exception as error:  # one session's fault must not hold up the others
            log.error("session.failed", error=error, segment=job.segment)

    # --- an engine that fails -----------------------------------------------------------------------------------

    def _hung(self, batch: Batch) -> None:
        self._metrics.engine_hangs.inc()
        self._busy.difference_update(job.lane for job in batch.jobs)
        self._line.hung(batch)
        now = self._clock()
        for job in batch.jobs:
            self._settle(job, EngineLost("the engine hung"), now)

    def _well(self, well: bool) -> None:
        self._tell("engine", not well)
        self._stir()

    # --- what sessions are told ---------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._ticker = None
        now = self._clock()
        self._pace.update(now, sum(not patron.background for patron in self._patrons))
        stretch = self._pace.stretch
        self._waiting.thin(stretch)
        self._metrics.window_stretch.set(stretch)
        for rank in Rank:
            self._metrics.window_waiting.labels(rank.name.lower()).set(self._waiting.count(rank))
        if "load" in self._troubles:
            self._tell("load", stretch >= UNTOLD_STRETCH)
        else:
            self._tell("load", stretch >= TOLD_STRETCH)
        if self._patrons and not self._closed:
            self._ticker = asyncio.get_running_loop().call_later(UPDATE_S, self._tick)

    def _tell(self, trouble: Trouble, active: bool) -> None:
        if active is (trouble in self._troubles):
            return
        (self._troubles.add if active else self._troubles.discard)(trouble)
        log.warning("scheduler.trouble", reason=trouble, active=active, sessions=len(self._patrons))
        for patron in tuple(self._patrons):
            patron.told(trouble, active)

    def _tell_newcomer(self, patron: Patron) -> None:
        if patron in self._patrons:
            for trouble in sorted(self._troubles):
                patron.told(trouble, True)
