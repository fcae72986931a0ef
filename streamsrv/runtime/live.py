"""Live engines: feed a listener what is new of each span, and replay a segment whose worker was lost.

One lane per channel, one question at a time in a lane, in order.  A lane has a task only while it has questions, so
an idle session costs nothing here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from streamsrv import telemetry
from streamsrv.engines.base import Hypothesis, Listener, LiveEngine
from streamsrv.errors import EngineBusy, EngineFailed
from streamsrv.events import Final
from streamsrv.facts import Answer, Position, Word
from streamsrv.runtime.ear import Answered, Read, Troubled
from streamsrv.session.effects import Hear

MAX_REPLAYS = 3
"""Times a segment is replayed after its worker was lost; then the segment is given up and says so."""
BUSY_PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses while an engine is too busy for a final; the last one repeats.  Partials are not repeated."""

log = telemetry.logger("live")


class _Lane:
    """One channel: its listener, the segment the listener has open, and the questions that wait."""

    __slots__ = ("fed", "listener", "questions", "segment", "task")

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.questions: deque[Hear] = (
            deque()
        )  # bounded by the machine: one partial, and finals whose audio is in the ring
        self.segment: int | None = None
        self.fed: Position = 0
        self.task: asyncio.Task[None] | None = None


class LiveEar:
    """The ear of one session on a live engine.

    Args:
        engine: hears.
        channels: lanes.
        language: BCP 47, or the engine's own choice.
        read: gives the audio of a span.
        answered: takes the answers.
        troubled: told when the engine cannot hear, and when it can again.
        replayed: called for each segment heard again after a loss.
        background: hears a file, behind live speech.

    Raises:
        UnsupportedLanguage: the engine does not know ``language``.
    """

    def __init__(
        self,
        engine: LiveEngine,
        *,
        channels: int,
        language: str | None,
        read: Read,
        answered: Answered,
        troubled: Troubled,
        replayed: Callable[[], None] = lambda: None,
        background: bool = False,
    ) -> None:
        self._engine = engine
        self._read = read
        self._answered = answered
        self._troubled = troubled
        self._replayed = replayed
        self._forgotten: set[int] = set()
        self._lanes = [_Lane(engine.listen(language=language, background=background)) for _ in range(channels)]

    def hear(self, question: Hear) -> None:
        lane = self._lanes[question.channel]
        lane.questions.append(question)
        if lane.task is None:
            lane.task = asyncio.get_running_loop().create_task(self._work(lane))

    def forget(self, request: int) -> None:
        if any(question.request == request for lane in self._lanes for question in lane.questions):
            self._forgotten.add(request)

    def ended(self, final: Final) -> None:
        """The listener gave it, and began anew."""

    def close(self) -> None:
        for lane in self._lanes:
            lane.questions.clear()
            if lane.task is not None:
                lane.task.cancel()
                lane.task = None
            lane.listener.close()

    async def _work(self, lane: _Lane) -> None:
        while lane.questions:
            question = lane.questions[0]
            answer = None if question.request in self._forgotten else await self._answer(lane, question)
            lane.questions.popleft()
            self._forgotten.discard(question.request)
            if answer is not None:
                self._answered(answer)
        lane.task = None

    async def _answer(self, lane: _Lane, question: Hear) -> Answer:
        name = self._engine.about.name
        try:
            heard = await self._patiently(lane, question)
        except EngineBusy:
            return Answer(request=question.request, engine=name, failed=True)
        except EngineFailed as error:
            log.warning("engine.segment_failed", error=error.code, segment=question.segment, final=question.final)
            lane.segment = None
            lane.listener.abandon()
            return Answer(request=question.request, engine=name, failed=True)
        words = tuple(_placed(word, question.start) for word in heard.words)
        return Answer(request=question.request, words=words, language=heard.language, engine=name)

    async def _patiently(self, lane: _Lane, question: Hear) -> Hypothesis:
        """Hear, replaying after a loss; a final also waits for as long as the engine is busy."""
        replays = busy = 0
        while True:
            try:
                heard = await self._hear(lane, question)
            except EngineBusy:
                if not question.final:
                    raise
                self._troubled(True)
                await asyncio.sleep(BUSY_PAUSES_S[min(busy, len(BUSY_PAUSES_S) - 1)])
                busy += 1
            except EngineFailed:
                raise
            except Exception as error:  # a lost worker, or a fault inside the engine: both lose the segment's state
                replays += 1
                lane.segment = None
                self._replayed()
                log.warning("engine.replay", error=error, segment=question.segment, replays=replays)
                if replays > MAX_REPLAYS:
                    raise EngineFailed(f"segment {question.segment} was lost {replays} times") from error
            else:
                if busy:
                    self._troubled(False)
                return heard

    async def _hear(self, lane: _Lane, question: Hear) -> Hypothesis:
        if lane.segment != question.segment:
            lane.listener.abandon()
            lane.segment, lane.fed = question.segment, question.start
        samples = self._read(question.channel, lane.fed, question.stop)
        heard = await lane.listener.hear(samples, final=question.final)
        lane.fed = question.stop
        if question.final:
            lane.segment = None
        return heard


def _placed(word: Word, start: Position) -> Word:
    return Word(
        text=word.text,
        start=start + word.start,
        stop=start + word.stop,
        confidence=word.confidence,
        estimated=word.estimated,
        glued=word.glued,
    )
