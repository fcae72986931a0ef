"""The scheduler with real threads: batches, failures, hangs, and sessions that leave."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest

from streamsrv import telemetry
from streamsrv.engines.base import Hypothesis, Window
from streamsrv.errors import EngineBusy, EngineError, EngineFailed
from streamsrv.events import Final
from streamsrv.facts import RATE_HZ, Answer
from streamsrv.runtime import scheduler as room
from streamsrv.runtime.ear import Trouble
from streamsrv.runtime.scheduler import Scheduler
from streamsrv.runtime.scheduling import lifeline
from streamsrv.runtime.window import WindowEar
from streamsrv.session.effects import Hear
from tests.support.windows import ScriptedEngine, counted

SECOND = RATE_HZ


class Session:
    """One session's side of the scheduler: asks, and remembers what it was told."""

    def __init__(self, scheduler: Scheduler, *, channels: int = 1, background: bool = False) -> None:
        self.answers: dict[int, Answer] = {}
        self.order: list[int] = []
        self.troubles: list[tuple[str, bool]] = []
        self.came = asyncio.Event()
        self.newest: Callable[[Hear], Hear | None] = lambda question: question
        self._questions: dict[int, Hear] = {}
        self.ear = WindowEar(
            scheduler,
            channels=channels,
            language=None,
            read=lambda channel, start, stop: bytes(2 * (stop - start)),
            answered=self._answered,
            troubled=self._troubled,
            picked=lambda request: self.newest(self._questions[request]),
            background=background,
        )

    def ask(
        self,
        request: int,
        *,
        final: bool = False,
        channel: int = 0,
        segment: int = 0,
        start: int = 0,
        stop: int = SECOND,
        deadline: float = 0.0,
    ) -> None:
        question = Hear(
            request=request, channel=channel, segment=segment, start=start, stop=stop, final=final, deadline=deadline
        )
        self._questions[request] = question
        self.ear.hear(question)

    async def answer(self, request: int) -> Answer:
        async with asyncio.timeout(10):
            while request not in self.answers:
                self.came.clear()
                await self.came.wait()
        return self.answers[request]

    def _answered(self, answer: Answer) -> None:
        self.answers[answer.request] = answer
        self.order.append(answer.request)
        question = self._questions[answer.request]
        if question.final:
            self.ear.ended(self._final(question))
        self.came.set()

    def _final(self, question: Hear) -> Final:
        return Final(
            channel=question.channel,
            utterance=question.segment,
            segment=question.segment,
            start=question.start,
            stop=question.stop,
            text="",
            cause="vad",
            endpoint=True,
            engine="scripted",
        )

    def _troubled(self, active: bool, reason: Trouble = "engine") -> None:
        self.troubles.append((reason, active))
        self.came.set()

    async def trouble(self, *told: tuple[str, bool]) -> None:
        async with asyncio.timeout(10):
            while self.troubles != list(told):
                self.came.clear()
                await self.came.wait()


class Gate:
    """Holds the engine's threads until opened; tells when one has come."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.reached = threading.Semaphore(0)

    def __call__(self, windows: Sequence[Window]) -> None:
        self.reached.release()
        assert self.open.wait(10)

    async def someone(self) -> None:
        assert await asyncio.to_thread(self.reached.acquire, timeout=10)


@asynccontextmanager
async def scheduling(
    engine: ScriptedEngine, *, rebuild: Callable[[], ScriptedEngine] | None = None, hang_s: float = 30.0
) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(engine, telemetry.Metrics("test"), rebuild=rebuild, hang_s=hang_s)
    try:
        yield scheduler
        assert engine.faults == []
    finally:
        await scheduler.close()


def texts(answer: Answer) -> str:
    return " ".join(word.text for word in answer.words)


async def test_what_waits_while_the_engine_is_busy_is_heard_in_one_batch_and_everyone_gets_his_own() -> None:
    engine = ScriptedEngine()
    engine.script = gate = Gate()
    async with scheduling(engine) as scheduler:
        first = Session(scheduler)
        first.ask(0)
        await gate.someone()
        others = [Session(scheduler) for _ in range(5)]
        for number, session in enumerate(others):
            session.ask(number, stop=SECOND * (number + 1))
        gate.open.set()
        for number, session in enumerate(others):
            expected = " ".join(f"w{n}" for n in range(2 * (number + 1)))
            assert texts(await session.answer(number)) == expected
            assert session.order == [number]
    assert sorted(len(batch) for batch in engine.batches) == [1, 5]


async def test_a_final_is_heard_before_partials_that_came_earlier() -> None:
    engine = ScriptedEngine(batch=1)
    engine.script = gate = Gate()
    async with scheduling(engine) as scheduler:
        sessions = [Session(scheduler) for _ in range(3)]
        sessions[0].ask(0)
        await gate.someone()
        sessions[1].ask(1, deadline=0.0)
        sessions[2].ask(2, final=True, deadline=99.0)
        gate.open.set()
        await asyncio.gather(sessions[1].answer(1), sessions[2].answer(2))
    assert [batch[0].final for batch in engine.batches] == [False, True, False]


async def test_a_waiting_partial_covers_the_newest_audio_when_its_turn_comes() -> None:
    engine = ScriptedEngine()
    engine.script = gate = Gate()
    async with scheduling(engine) as scheduler:
        first, second = Session(scheduler), Session(scheduler)
        first.ask(0)
        await gate.someone()
        second.ask(1)
        second.newest = lambda question: Hear(
            request=1, channel=0, segment=0, start=0, stop=3 * SECOND, final=False, deadline=0.0
        )
        gate.open.set()
        assert texts(await second.answer(1)) == "w0 w1 w2 w3 w4 w5"


async def test_a_partial_whose_segment_has_ended_is_not_heard_at_all() -> None:
    engine = ScriptedEngine()
    engine.script = gate = Gate()
    async with scheduling(engine) as scheduler:
        first, second, third = Session(scheduler), Session(scheduler), Session(scheduler)
        first.ask(0)
        await gate.someone()
        second.ask(1)
        second.newest = lambda question: None
        third.ask(2)
        third.ask(3, final=True)
        gate.open.set()
        assert (await third.answer(2)).failed, "its final makes it needless"
        assert texts(await third.answer(3)) == "w0 w1"
        first.ask(4)
        await first.answer(4)
        assert scheduler.waiting == 0
        assert second.answers == {}
    assert sum(len(batch) for batch in engine.batches) == 3


async def test_of_a_channels_partials_only_the_newest_waits() -> None:
    engine = ScriptedEngine()
    engine.script = gate = Gate()
    async with scheduling(engine) as scheduler:
        first, second = Session(scheduler), Session(scheduler)
        first.ask(0)
        await gate.someone()
        for request in (1, 2, 3):
            second.ask(request, stop=request * SECOND)
        assert scheduler.waiting == 1
        gate.open.set()
        assert texts(await second.answer(3)) == "w0 w1 w2 w3 w4 w5"
        assert [second.answers[request].failed for request in (1, 2, 3)] == [True, True, False]


async def test_a_broken_batch_is_heard_again_one_by_one_and_only_the_culprit_fails() -> None:
    engine = ScriptedEngine()
    gate = Gate()

    def script(windows: Sequence[Window]) -> None:
        gate(windows)
        if any(window.stop == 2 * SECOND for window in windows):
            raise RuntimeError("words nobody may see")

    engine.script = script
    async with scheduling(engine) as scheduler:
        first, culprit = Session(scheduler), Session(scheduler)
        first.ask(0)
        await gate.someone()
        others = [Session(scheduler) for _ in range(3)]
        for session in others:
            session.ask(1, final=True)
        culprit.ask(1, final=True, stop=2 * SECOND)
        gate.open.set()
        assert (await culprit.answer(1)).failed
        for session in others:
            answer = await session.answer(1)
            assert not answer.failed
            assert texts(answer) == "w0 w1"
    assert [len(batch) for batch in engine.batches] == [1, 4, 1, 1, 1, 1]


async def test_a_window_that_fails_fails_alone_and_at_once() -> None:
    engine = ScriptedEngine()
    engine.judge = lambda window: EngineFailed("never") if window.stop == 2 * SECOND else counted(window)
    async with scheduling(engine) as scheduler:
        well, ill = Session(scheduler), Session(scheduler)
        well.ask(1, final=True)
        ill.ask(2, final=True, stop=2 * SECOND)
        assert not (await well.answer(1)).failed
        assert (await ill.answer(2)).failed
    assert sum(len(batch) for batch in engine.batches) == 2


async def test_a_final_waits_while_the_engine_is_busy_and_its_session_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BUSY_PAUSES_S", (0.001,))
    engine = ScriptedEngine()
    refused = 3

    def judge(window: Window) -> Hypothesis | EngineError:
        nonlocal refused
        if refused and window.final:
            refused -= 1
            return EngineBusy("no memory")
        return counted(window)

    engine.judge = judge
    async with scheduling(engine) as scheduler:
        session, other = Session(scheduler), Session(scheduler)
        session.ask(0, final=True)
        assert texts(await session.answer(0)) == "w0 w1"
        assert session.troubles == [("engine", True)] * 3 + [("engine", False)]
        assert other.troubles == []


async def test_an_engine_that_gives_too_few_answers_breaks_its_batch_not_the_scheduler() -> None:
    engine = ScriptedEngine()
    hear = engine.hear
    engine.hear = lambda windows: hear(windows)[1:]  # type: ignore[method-assign]
    async with scheduling(engine) as scheduler:
        session = Session(scheduler)
        session.ask(0, final=True)
        assert (await session.answer(0)).failed
    assert len(engine.batches) == 2


async def test_a_session_that_leaves_leaves_nothing_behind() -> None:
    engine = ScriptedEngine(batch=1)
    engine.script = gate = Gate()
    async with scheduling(engine) as scheduler:
        running, waiting = Session(scheduler, channels=2), Session(scheduler)
        running.ask(0)
        await gate.someone()
        running.ask(1, channel=1)
        waiting.ask(2, final=True)
        gone = [weakref.ref(running.ear), weakref.ref(waiting.ear)]
        running.ear.close()
        waiting.ear.close()
        waiting.ear.close()
        assert scheduler.waiting == 0
        assert [attention.closed for attention in engine.attentions] == [0, 1, 1], "one is in a thread"
        after = Session(scheduler)
        after.ask(0)
        gate.open.set()
        assert texts(await after.answer(0)) == "w0 w1"
        assert [attention.closed for attention in engine.attentions] == [1, 1, 1, 0]
        assert running.answers == waiting.answers == {}
        engine.batches.clear()
        del running, waiting
        gc.collect()
        assert [ref() for ref in gone] == [None, None]


async def test_a_forgotten_question_is_neither_heard_nor_answered() -> None:
    engine = ScriptedEngine(batch=1)
    engine.script = gate = Gate()
    async with scheduling(engine) as scheduler:
        session, other = Session(scheduler), Session(scheduler)
        session.ask(0)
        await gate.someone()
        other.ask(1)
        other.ear.forget(1)
        session.ear.forget(0)
        other.ask(2, final=True)
        gate.open.set()
        await other.answer(2)
        assert session.answers == {}
        assert other.order == [2]


async def test_an_engine_that_hangs_is_given_up_and_built_anew_and_nobody_loses_a_final(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "HANG_FACTOR", 0.0)
    monkeypatch.setattr(lifeline, "REBUILD_PAUSES_S", (0.0, 0.001))
    old, new = ScriptedEngine(), ScriptedEngine(name="new")
    old.script = gate = Gate()
    failures = [True]

    def rebuild() -> ScriptedEngine:
        if failures:
            failures.pop()
            raise MemoryError
        return new

    async with scheduling(old, rebuild=rebuild, hang_s=0.02) as scheduler:
        hung, waiting = Session(scheduler), Session(scheduler)
        hung.ask(0, final=True, stop=2 * SECOND)
        await gate.someone()
        waiting.ask(1, final=True, stop=3 * SECOND)
        await waiting.trouble(("engine", True), ("engine", False))
        assert texts(await hung.answer(0)) == "w0 w1 w2 w3"
        assert texts(await waiting.answer(1)) == "w0 w1 w2 w3 w4 w5"
        assert hung.answers[0].engine == "new"
        assert hung.troubles == [("engine", True), ("engine", False)]
        assert scheduler.healthy
        assert old.closed == 0, "its thread is still inside"
        gate.open.set()
        async with asyncio.timeout(10):
            while not old.closed:
                await asyncio.to_thread(gate.open.wait, 0.001)
        assert hung.order == [0], "what the lost thread says at last is ignored"
        assert new.faults == []
        assert len(new.attentions) == 2, "what the old one remembered is of no use to the new one"


async def test_without_a_way_to_build_it_anew_a_hung_engine_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "HANG_FACTOR", 0.0)
    engine = ScriptedEngine()
    engine.script = gate = Gate()
    async with scheduling(engine, hang_s=0.02) as scheduler:
        session = Session(scheduler)
        session.ask(0, final=True)
        await session.trouble(("engine", True))
        assert not scheduler.healthy
        late = Session(scheduler)
        await late.trouble(("engine", True))
        gate.open.set()
        assert texts(await session.answer(0)) == "w0 w1"
        await late.trouble(("engine", True), ("engine", False))
        assert scheduler.healthy


async def test_questions_wait_for_an_engine_that_is_still_loading() -> None:
    engine = ScriptedEngine()
    engine.healthy = False
    async with scheduling(engine) as scheduler:
        session = Session(scheduler)
        session.ask(0, final=True)
        await asyncio.sleep(0)
        assert scheduler.waiting == 1
        await scheduler.start()
        assert texts(await session.answer(0)) == "w0 w1"


async def test_files_are_heard_behind_live_speech_and_many_of_their_segments_together() -> None:
    engine = ScriptedEngine()
    engine.script = gate = Gate()
    async with scheduling(engine) as scheduler:
        live, file = Session(scheduler), Session(scheduler, background=True)
        live.ask(0)
        await gate.someone()
        for segment in range(4):
            at = segment * 2 * SECOND
            file.ask(segment, final=True, segment=segment, start=at, stop=at + 2 * SECOND)
        other = Session(scheduler)
        other.ask(9)
        gate.open.set()
        for segment in range(4):
            expected = " ".join(f"w{n}" for n in range(4 * segment, 4 * segment + 4))
            assert texts(await file.answer(segment)) == expected
        await other.answer(9)
    assert [(batch[0].final, len(batch)) for batch in engine.batches] == [(False, 1), (False, 1), (True, 4)]


async def test_a_lane_is_never_in_two_threads_and_keeps_its_order() -> None:
    engine = ScriptedEngine(parallel=4, batch=2)
    async with scheduling(engine) as scheduler:
        sessions = [Session(scheduler, channels=2) for _ in range(12)]
        for segment in range(15):
            for session in sessions:
                for channel in range(2):
                    at = segment * SECOND
                    session.ask(
                        2 * segment + channel, final=True, channel=channel, segment=segment, start=at, stop=at + SECOND
                    )
        for session in sessions:
            for request in range(30):
                segment = request // 2
                assert texts(await session.answer(request)) == f"w{2 * segment} w{2 * segment + 1}"
            assert [r for r in session.order if r % 2] == sorted(r for r in session.order if r % 2)
    assert all(len(attention.audio) == 0 for attention in engine.attentions), "nothing is kept of what has its final"


async def test_everyone_is_told_when_partials_thin_out_and_when_that_is_over() -> None:
    engine = ScriptedEngine()
    async with scheduling(engine) as scheduler:
        session = Session(scheduler)
        session.ask(9, final=True)
        await session.answer(9)
        scheduler._pace.stretch = 3.0
        scheduler._pace.update = lambda now, sessions: None  # type: ignore[method-assign]
        scheduler._tick()
        assert session.troubles == [("load", True)]
        session.ask(0, final=True, segment=1, start=SECOND, stop=2 * SECOND)
        assert (await session.answer(0)).every_s == pytest.approx(1.5)
        late = Session(scheduler)
        await late.trouble(("load", True))
        scheduler._pace.stretch = 1.0
        scheduler._tick()
        assert session.troubles == [("load", True), ("load", False)]
        session.ask(1, final=True, segment=2, start=2 * SECOND, stop=3 * SECOND)
        assert (await session.answer(1)).every_s == pytest.approx(0.5)


async def test_what_a_partial_heard_behind_a_cut_belongs_to_the_next_segment() -> None:
    """A segment too long is cut where it is quiet, before what its newest partial heard already."""
    engine = ScriptedEngine()
    async with scheduling(engine) as scheduler:
        session = Session(scheduler)
        session.ask(0, stop=3 * SECOND)
        await session.answer(0)
        session.ask(1, final=True, stop=2 * SECOND)
        assert texts(await session.answer(1)) == "w0 w1 w2 w3"
        session.ask(2, final=True, segment=1, start=2 * SECOND, stop=4 * SECOND)
        assert texts(await session.answer(2)) == "w4 w5 w6 w7"
    assert engine.faults == []


async def test_a_device_that_is_shared_bears_half_of_what_its_threads_could_alone() -> None:
    async def bears(sharing: int) -> float:
        engine = ScriptedEngine(parallel=2)
        engine.abilities = msgspec.structs.replace(engine.abilities, sharing=sharing)
        engine.script = lambda windows: time.sleep(0.04)
        async with scheduling(engine) as scheduler:
            session = Session(scheduler)
            for request in range(12):
                session.ask(request, segment=request)
                await session.answer(request)
            assert scheduler.load.sessions is not None
            return scheduler.load.sessions

    assert await bears(sharing=2) == pytest.approx(await bears(sharing=1) / 2, rel=0.3)
