"""A session on a window engine: real front, real machine, real scheduler, an engine of known words."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import msgspec
import pytest

from benchmarks.null import NullEngine
from streamsrv import commands, events, telemetry
from streamsrv.commands import Options
from streamsrv.engines.base import Hypothesis, Window
from streamsrv.errors import BadRequest, EngineError, EngineFailed, UnsupportedLanguage
from streamsrv.facts import RATE_HZ
from streamsrv.runtime.engines import Engines, machine_settings, wishes_of
from streamsrv.runtime.scheduler import Scheduler
from streamsrv.runtime.scheduling import waiting
from streamsrv.runtime.scheduling.job import Job, Rank
from streamsrv.runtime.settings import SessionSettings
from tests.runtime.stage import Stage
from tests.support.speech import silence, voice
from tests.support.windows import WORD_SAMPLES, ScriptedAttention, ScriptedEngine, counted


@pytest.fixture(autouse=True)
def no_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LINGER_S", 0.0)


class WindowStage(Stage):
    """One speaker before a window engine."""

    def __init__(self, scripted: ScriptedEngine | None = None, *, options: Options | None = None) -> None:
        super().__init__(options=options)
        self.scripted = scripted or ScriptedEngine()
        self.engines = Engines([self.scripted], self.services.metrics)
        scheduler = self.engines.default
        assert isinstance(scheduler, Scheduler)
        self.scheduler = scheduler
        self.engine = scheduler  # type: ignore[assignment]
        self.settings = machine_settings(scheduler.abilities, SessionSettings())

    async def rest(self) -> None:
        """Until the engine has answered everything."""
        async with asyncio.timeout(20):
            await super().rest()
            while self.scheduler.waiting or self.scheduler._busy:
                await super().rest()
            await super().rest()  # the last answer may have come in the last turn

    async def hear(self, audio: bytes) -> WindowStage:
        await self.begin()
        await self.send(audio)
        await self.order(commands.Finish())
        await self.engines.close()
        assert self.peer.closed == (1000, "")
        assert self.scripted.faults == []
        return self


def words_of(final: events.Final) -> list[str]:
    return [f"w{n}" for n in range(-(-final.start // WORD_SAMPLES), final.stop // WORD_SAMPLES)]


def check_promises(stage: Stage) -> None:
    promised: dict[tuple[int, int], str] = {}
    for event in stage.peer.heard:
        if isinstance(event, events.Partial | events.Final):
            assert event.text.startswith(promised.get((event.channel, event.segment), ""))
            if isinstance(event, events.Partial):
                promised[event.channel, event.segment] = event.text[: event.stable_chars]


async def test_an_utterance_is_heard_word_by_word_and_its_final_says_all_of_it() -> None:
    stage = await WindowStage().hear(silence(0.5) + voice(12.0) + silence(1.0))
    (final,) = stage.peer.finals
    assert final.text.split() == words_of(final)
    assert [word.start for word in final.words] == [int(word.text[1:]) * WORD_SAMPLES for word in final.words]
    assert (final.engine, final.language) == ("scripted", "en-US")
    partials = [event for event in stage.peer.heard if isinstance(event, events.Partial)]
    assert len(partials) > 15
    assert partials[-1].stable_chars > 40
    check_promises(stage)


async def test_long_speech_is_trimmed_and_nothing_is_lost_or_doubled() -> None:
    stage = await WindowStage().hear(silence(0.5) + voice(50.0) + silence(1.0))
    for final in stage.peer.finals:
        assert final.text.split() == words_of(final)
    check_promises(stage)
    windows = [window for batch in stage.scripted.batches for window in batch]
    partials = [(w.stop - w.start) / RATE_HZ for w in windows if not w.final]
    assert max(partials) <= 5.0 + 0.7
    assert sum(partials) / 50.0 < 10.0, "seconds heard per second spoken"


async def test_every_sample_is_given_to_the_engine_once() -> None:
    stage = WindowStage()
    taken: list[tuple[int, int]] = []
    take = ScriptedAttention.take

    def count(attention: ScriptedAttention, samples: bytes, position: int) -> None:
        taken.append((position, position + len(samples) // 2))
        take(attention, samples, position)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptedAttention, "take", count)
        await stage.hear(silence(0.5) + (voice(7.0) + silence(1.0)) * 3)
    spans = [(final.start, final.stop) for final in stage.peer.finals]
    assert len(spans) == 3
    for before, after in pairwise(taken):
        assert after[0] >= before[1]
    assert sum(stop - start for start, stop in taken) == sum(stop - start for start, stop in spans)


async def test_two_channels_are_two_voices() -> None:
    stage = WindowStage(options=Options(channels=2, multichannel=True))
    left, right = silence(0.2) + voice(3.0) + silence(4.0), silence(3.8) + voice(3.0) + silence(0.4)
    await stage.hear(b"".join(left[at : at + 2] + right[at : at + 2] for at in range(0, len(left), 2)))
    assert [(final.channel, final.text.split()) for final in stage.peer.finals] == [
        (final.channel, words_of(final)) for final in sorted(stage.peer.finals, key=lambda final: final.channel)
    ]
    assert len(stage.scripted.attentions) == 2
    assert [attention.closed for attention in stage.scripted.attentions] == [1, 1]


async def test_without_interim_only_finals_are_heard() -> None:
    stage = await WindowStage(options=Options(interim=False)).hear(silence(0.5) + voice(6.0) + silence(1.0))
    assert [window.final for batch in stage.scripted.batches for window in batch] == [True]
    assert stage.peer.finals[0].text.split() == words_of(stage.peer.finals[0])


async def test_a_segment_the_engine_gives_up_is_said_and_the_next_is_heard() -> None:
    stage = WindowStage()
    failed = 0

    def judge(window: Window) -> Hypothesis | EngineError:
        nonlocal failed
        if window.final and not failed:
            failed += 1
            return EngineFailed("never")
        return counted(window)

    stage.scripted.judge = judge
    await stage.hear(silence(0.5) + voice(2.0) + silence(1.0) + voice(2.0) + silence(1.0))
    first, second = stage.peer.finals
    assert first.failed
    assert not second.failed
    assert second.text.split() == words_of(second)
    warned = [event for event in stage.peer.heard if isinstance(event, events.Warned)]
    assert [(event.code, event.segment) for event in warned] == [("segment_failed", 0)]
    check_promises(stage)


async def test_an_engine_that_contradicts_itself_takes_nothing_back() -> None:
    stage = WindowStage(ScriptedEngine(prefix=False))
    calls = 0

    def judge(window: Window) -> Hypothesis | EngineError:
        nonlocal calls
        calls += 1
        heard = counted(window)
        if isinstance(heard, Hypothesis) and calls % 3 == 0:
            return Hypothesis(words=heard.words[1:], language="en-US")
        return heard

    stage.scripted.judge = judge
    await stage.hear(silence(0.5) + voice(30.0) + silence(1.0))
    check_promises(stage)


async def test_a_language_it_does_not_know_is_refused_before_anything_begins() -> None:
    stage = WindowStage(options=Options(language="de"))
    with pytest.raises(UnsupportedLanguage):
        stage.engines.check(stage.scheduler, language="de")
    with pytest.raises(UnsupportedLanguage):
        await stage.begin()
    assert stage.scheduler._patrons == {}
    await stage.engines.close()


@pytest.mark.parametrize("whole", [True, False])
async def test_a_final_goes_on_where_its_partials_began_unless_it_gains_from_its_whole_segment(whole: bool) -> None:
    scripted = ScriptedEngine()
    scripted.abilities = msgspec.structs.replace(scripted.abilities, whole_finals=whole)
    stage = WindowStage(scripted)
    await stage.hear(silence(0.5) + voice(15.0) + silence(1.0))
    (final,) = stage.peer.finals
    assert final.text.split() == words_of(final)
    (window,) = [window for batch in scripted.batches for window in batch if window.final]
    assert window.stop == final.stop
    assert (window.start == final.start) is whole
    assert whole or window.stop - window.start < 7 * RATE_HZ


async def test_a_question_counts_as_long_as_the_engine_pads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = ScriptedEngine()
    scripted.abilities = msgspec.structs.replace(scripted.abilities, floor_s=2.0, final_floor_s=30.0)
    stage = WindowStage(scripted)
    put, sizes = stage.scheduler.put, dict[Rank, set[float]]()

    def note(job: Job) -> None:
        sizes.setdefault(job.rank, set()).add(job.size_s)
        put(job)

    monkeypatch.setattr(stage.scheduler, "put", note)
    await stage.hear(silence(0.5) + voice(1.2) + silence(1.0) + voice(4.0) + silence(1.0))
    assert sizes[Rank.FINAL] == {30.0}
    assert {2.0, 3.0} <= sizes[Rank.PARTIAL] <= {2.0, 3.0, 5.0}


async def test_task_prompt_and_hot_words_reach_the_engine() -> None:
    options = Options(task="translate", prompt="Dear Ada,", hotwords="Lovelace , Babbage,")
    stage = WindowStage(options=options)
    await stage.hear(silence(0.5) + voice(2.0) + silence(1.0))
    assert {attention.asked for attention in stage.scripted.attentions} == {
        ("translate", "Dear Ada,", ("Lovelace", "Babbage"))
    }


@pytest.mark.parametrize("options", [{"task": "translate"}, {"prompt": "Dear Ada,"}, {"hotwords": "Ada"}], ids=str)
def test_a_live_engine_refuses_what_it_cannot_do_by_name(options: dict[str, str]) -> None:
    engine = NullEngine(talks=False)
    engines = Engines([engine], telemetry.Metrics("test"))
    engines.check(engine, language=None, wishes=wishes_of(Options()))
    with pytest.raises(BadRequest, match=f"option '{next(iter(options))}'") as refused:
        engines.check(engine, language=None, wishes=wishes_of(msgspec.convert(options, Options)))
    assert "Ada" not in str(refused.value), "what people write is not repeated"


async def test_a_session_that_comes_back_goes_on_with_a_new_ear() -> None:
    stage = WindowStage()
    await stage.begin()
    await stage.send(silence(0.5) + voice(4.0))
    await stage.order(commands.Disconnect(clean=False))
    audio = silence(0.5) + voice(8.0) + silence(1.0)
    await stage.resume()
    ready = stage.peer.heard[0]
    assert isinstance(ready, events.Ready)
    await stage.send(audio[2 * ready.resume_at :])
    await stage.order(commands.Finish())
    (final,) = stage.peer.finals
    assert final.text.split() == words_of(final)
    await stage.engines.close()
    assert stage.scripted.faults == []


# --- finals that partials become ------------------------------------------------------------------------------------


def sure(window: Window) -> Hypothesis | EngineError:
    """The words of a window that sound; the same whether it is a final or not."""
    said = counted(window)
    if isinstance(said, EngineError):
        return said
    attention = window.attention
    assert isinstance(attention, ScriptedAttention)
    at = window.start
    loud = [word for word in said.words if any(attention.samples(at + word.start, at + word.stop - WORD_SAMPLES // 4))]
    return Hypothesis(words=tuple(loud), language="en-US", conclusive=True)


async def test_finals_come_of_partials_and_the_engine_forgets_their_audio() -> None:
    engine = ScriptedEngine(every_s=0.25)
    engine.abilities = msgspec.structs.replace(engine.abilities, conclusive=True, whole_finals=False)
    engine.judge = sure
    said = b"".join(voice(2.0) + silence(1.5) for _ in range(6))
    stage = await WindowStage(engine).hear(silence(0.5) + said)
    finals = stage.peer.finals
    assert len(finals) == 6
    assert all(3 <= len(final.text.split()) <= 4 for final in finals)
    asked = [window for batch in engine.batches for window in batch if window.final]
    assert len(asked) <= 1, "but for the last, which the end cuts short"
    (attention,) = engine.attentions
    assert attention.start >= finals[-2].stop, "nothing is kept of those that have their finals"
    check_promises(stage)
