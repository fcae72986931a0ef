"""The ear of one session on a window engine: questions become jobs, audio goes from the ring into the attention.

Each channel is a lane: one attention, given every sample from the start of the oldest segment without a final, once.
A waiting partial is asked anew when its turn comes, so it covers the newest audio, and vanishes when its segment has
ended meanwhile.
"""

from __future__ import annotations

import asyncio

import msgspec

from streamsrv.engines.base import PLAIN, Attention, Hypothesis, Window, Wishes
from streamsrv.errors import EngineBusy
from streamsrv.events import Final
from streamsrv.facts import Answer, Position
from streamsrv.runtime.ear import Answered, Picked, Read, Trouble, TroubledBy
from streamsrv.runtime.scheduler import Scheduler
from streamsrv.runtime.scheduling.job import Job, Rank, Task, size_of
from streamsrv.session.effects import Hear


class _Lane:
    """One channel: what the engine remembers of it, and the questions it has not answered."""

    __slots__ = ("asked", "attention", "fed", "generation", "jobs", "starts")

    def __init__(self) -> None:
        self.attention: Attention | None = None
        self.generation = -1
        """Of the engine the attention belongs to."""
        self.fed: Position = 0
        """The attention was given everything up to here, from the start of the oldest segment without a final."""
        self.starts: dict[int, Position] = {}
        """Segments without a final, and where they start; the first question of a segment tells it.  Bounded by the
        ring, as are the jobs."""
        self.jobs: dict[Job, Hear] = {}


class WindowEar:
    """The ear of one session on a window engine.

    Args:
        scheduler: shares out the engine's time.
        channels: lanes.
        language: BCP 47, or the engine's own choice.
        read: gives the audio of a span.
        answered: takes the answers; called from the event loop, never within ``hear``.
        troubled: told when the engine cannot hear, or less often than promised, and when that is over.
        picked: gives the newest form of a question.
        background: a file, heard behind live speech.
        wishes: how it wants to be heard.

    Raises:
        UnsupportedLanguage: the engine does not know ``language``.
        BadRequest: it cannot fulfil the wishes.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        channels: int,
        language: str | None,
        read: Read,
        answered: Answered,
        troubled: TroubledBy,
        picked: Picked,
        background: bool = False,
        wishes: Wishes = PLAIN,
    ) -> None:
        self.background = background
        self._wishes = wishes
        self._scheduler = scheduler
        self._language = language
        self._read = read
        self._answered = answered
        self._troubled = troubled
        self._picked = picked
        self._closed = False
        self._lanes = [_Lane() for _ in range(channels)]
        try:
            for lane in self._lanes:
                self._attend(lane)
        except EngineBusy:  # the engine is still loading: each lane is attended to when its first turn comes
            pass
        scheduler.enter(self)

    # --- what the driver calls ----------------------------------------------------------------------------------

    def hear(self, question: Hear) -> None:
        lane = self._lanes[question.channel]
        lane.starts.setdefault(question.segment, question.start)
        self._supersede(lane)
        job = Job(
            patron=self,
            lane=lane,
            rank=Rank.PARTIAL if not question.final else Rank.BACKGROUND if self.background else Rank.FINAL,
            size_s=self._size(question),
            asked_at=self._scheduler.now(),
            deadline=question.deadline,
            segment=question.segment,
        )
        lane.jobs[job] = question
        self._scheduler.put(job)

    def forget(self, request: int) -> None:
        for lane in self._lanes:
            for job in [job for job, question in lane.jobs.items() if question.request == request]:
                del lane.jobs[job]
                self._scheduler.drop(job)

    def ended(self, final: Final) -> None:
        """Its audio is not asked about any more.

        What lies behind its end is the next segment's, although a partial may have given it to the engine already.
        """
        lane = self._lanes[final.channel]
        lane.starts.pop(final.segment, None)
        if not lane.starts:
            self._scheduler.quiet(lane)
        if self._owns(lane) and lane.attention is not None:
            lane.attention.forget(min(lane.starts.values(), default=min(final.stop, lane.fed)))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._scheduler.leave(self)
        for lane in self._lanes:
            for job in lane.jobs:
                self._scheduler.drop(job)
            lane.jobs.clear()
            self._scheduler.quiet(lane)
            self._let_go(lane)

    # --- what the scheduler calls -------------------------------------------------------------------------------

    def ready(self, job: Job) -> Task | None:
        """The job's turn has come: what to hear, or ``None`` when it is no longer wanted."""
        lane = self._lane(job)
        question = lane.jobs.get(job)
        if question is not None and job.rank is Rank.PARTIAL:
            question = self._picked(question.request)
            if question is None:
                del lane.jobs[job]
            else:
                lane.jobs[job] = question
                job.size_s = self._size(question)
        if question is None:
            return None
        if job.tries:  # what broke may have left the attention anyhow
            lane.attention = None
        return self._task(lane, question)

    def heard(self, job: Job, heard: Hypothesis | None) -> None:
        """The job's answer, or that there is none."""
        lane = self._lane(job)
        question = lane.jobs.pop(job, None)
        if self._closed:
            self._let_go(lane)
        elif question is not None:
            self._answered(self._answer(question, heard))

    def told(self, trouble: Trouble, active: bool) -> None:
        """Something is wrong, or right again."""
        if not self._closed:
            self._troubled(active, trouble)

    # --- inside -------------------------------------------------------------------------------------------------

    def _lane(self, job: Job) -> _Lane:
        return next(lane for lane in self._lanes if lane is job.lane)

    def _size(self, question: Hear) -> float:
        abilities = self._scheduler.abilities
        floor_s = max(abilities.floor_s, abilities.final_floor_s) if question.final else abilities.floor_s
        return size_of(question.stop - question.start, floor_s)

    def _supersede(self, lane: _Lane) -> None:
        """Of a lane's partials only the newest waits; a final makes them needless."""
        for job, question in tuple(lane.jobs.items()):
            if not question.final and self._scheduler.waits(job):
                del lane.jobs[job]
                self._scheduler.drop(job)
                asyncio.get_running_loop().call_soon(self._unheard, question)

    def _unheard(self, question: Hear) -> None:
        if not self._closed:
            self._answered(self._answer(question, None))

    def _attend(self, lane: _Lane) -> Attention:
        lane.attention = attention = self._scheduler.attend(language=self._language, wishes=self._wishes)
        lane.generation = self._scheduler.generation
        lane.fed = -1
        return attention

    def _task(self, lane: _Lane, question: Hear) -> Task:
        """The window, and the audio its attention lacks."""
        attention = lane.attention
        if attention is None or lane.generation != self._scheduler.generation:
            attention = self._attend(lane)
        oldest = min(lane.starts.values())
        attention.forget(oldest)
        position = max(lane.fed, oldest)
        samples = self._read(question.channel, position, question.stop) if question.stop > position else b""
        lane.fed = max(position, question.stop)
        window = Window(
            attention=attention,
            start=question.start,
            stop=question.stop,
            final=question.final,
            prefix=question.prefix,
        )
        return Task(window=window, samples=samples, position=position)

    def _let_go(self, lane: _Lane) -> None:
        """Free what the engine remembers, unless a thread is at it: then when that is back."""
        if lane.attention is not None and not self._scheduler.hears(lane):
            if self._owns(lane):
                lane.attention.close()
            lane.attention = None

    def _owns(self, lane: _Lane) -> bool:
        """Whether no thread uses the attention: none of the engine's, nor one that hung with its predecessor."""
        return not self._scheduler.hears(lane) and lane.generation == self._scheduler.generation

    def _answer(self, question: Hear, heard: Hypothesis | None) -> Answer:
        name, every_s = self._scheduler.about.name, self._scheduler.every_s
        if heard is None:
            return Answer(request=question.request, engine=name, failed=True, every_s=every_s)
        words = tuple(
            msgspec.structs.replace(word, start=question.start + word.start, stop=question.start + word.stop)
            for word in heard.words
        )
        return Answer(
            request=question.request,
            words=words,
            language=heard.language,
            engine=name,
            every_s=every_s,
            conclusive=heard.conclusive,
        )
