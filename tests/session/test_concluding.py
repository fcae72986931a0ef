"""A partial that has heard all speech of a segment, and the silence after it, is the segment's final."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import pytest

from streamsrv.events import Final
from streamsrv.facts import RATE_HZ, Advanced, Answer, SpeechBegan, SpeechEnded, Word
from streamsrv.session.effects import AnyEffect, Forget, Hear, Keep
from streamsrv.session.settings import MachineSettings
from tests.session.world import WORD, World, spoken

AFTER_S, HANGOVER_S, STEP_S = 0.2, 0.4, 0.05
SETTINGS = MachineSettings(
    partial_every_s=0.6, partials_always=False, partial_first_s=0.5, concluded_after_s=AFTER_S, trim_finals=True
)


def words(start: int, stop: int) -> tuple[Word, ...]:
    return tuple(
        Word(text=spoken(at), start=at, stop=at + WORD, confidence=0.5) for at in range(start, stop - WORD + 1, WORD)
    )


@dataclass
class Talk(World):
    """One channel of words and pauses; the engine lets partials wait and hears what there is when their turn comes."""

    settings: MachineSettings = field(default_factory=lambda: SETTINGS)
    sure: float = 1.0
    """Share of partials that say they are conclusive."""
    failing: float = 0.0
    speech: int = 0
    """Where the last speech ended."""
    said_to: list[int] = field(default_factory=list)
    """Where the speech of each ended segment stopped."""

    def ask(self, question: Hear) -> Sequence[AnyEffect]:
        """Its turn has come."""
        newest = question if question.final else self.machine.picked(question.request, self.now)
        if newest is not None:
            self.after(self.random.uniform(0.02, 0.3), lambda: self.tell(newest))
        return ()

    def tell(self, question: Hear) -> Sequence[AnyEffect]:
        return self.machine.heard(self.answer(question), self.now)

    def answer(self, question: Hear, *, conclusive: bool | None = None) -> Answer:
        failed = not question.final and self.random.random() < self.failing
        sure = self.random.random() < self.sure if conclusive is None else conclusive
        speech = self.said_to[question.segment] if question.segment < len(self.said_to) else self.speech
        heard = () if failed else words(question.start, min(question.stop, speech))
        return Answer(
            request=question.request,
            words=heard,
            engine="scripted",
            failed=failed,
            conclusive=sure and not failed and not question.final,
        )

    def _carry_out(self, effect: AnyEffect) -> None:
        if isinstance(effect, Hear) and not self.mute:
            self.after(self.random.uniform(0.0, 0.2), lambda: self.ask(effect))
        else:
            super()._carry_out(effect)

    def sound(self, seconds: float, *, quiet: bool) -> list[AnyEffect]:
        """Audio; what came of it."""
        before = len(self.effects)
        for _ in range(round(seconds / STEP_S)):
            self.wind(self.now + STEP_S)
            self.position[0] += round(STEP_S * RATE_HZ)
            if not quiet:
                self.speech = self.position[0]
            mark = Advanced(channel=0, position=self.position[0], restart=0, quiet=self.position[0] - self.speech)
            self.run(self.machine.marked(mark, self.now))
        return self.effects[before:]

    def begin(self) -> None:
        self.open[0] = self.position[0]
        self.run(self.machine.marked(SpeechBegan(channel=0, start=self.open[0], position=self.open[0]), self.now))

    def end(self, *, over: bool = True) -> list[AnyEffect]:
        before, at = len(self.effects), self.position[0]
        mark = SpeechEnded(
            channel=0,
            stop=at,
            speech_stop=self.speech,
            speech_at=self.now,
            cause="vad" if over else "length",
            over=over,
            position=at,
        )
        self.said_to.append(self.speech)
        self.open.pop(0)
        if not over:
            self.open[0] = at
        self.run(self.machine.marked(mark, self.now))
        return self.effects[before:]


def questions(effects: Sequence[AnyEffect]) -> list[Hear]:
    return [effect for effect in effects if isinstance(effect, Hear)]


def kept(effects: Sequence[AnyEffect]) -> list[Final]:
    return [effect.final for effect in effects if isinstance(effect, Keep)]


def silent(settings: MachineSettings = SETTINGS) -> tuple[Talk, Hear]:
    """Two seconds of speech without a question open, and the question that the pause brings at once."""
    talk = Talk(1, mute=True, settings=settings)
    talk.begin()
    for asked in questions(talk.sound(2.0, quiet=False)):
        talk.run(talk.machine.heard(talk.answer(asked, conclusive=False), talk.now))
    for asked in questions(talk.effects):
        talk.run(talk.machine.heard(talk.answer(asked, conclusive=False), talk.now))
    (asked,) = questions(talk.sound(AFTER_S, quiet=True))
    assert asked.deadline == talk.now, "before the partials of those who speak on"
    return talk, asked


def test_an_answered_one_is_the_final_at_once() -> None:
    talk, asked = silent()
    talk.run(talk.machine.heard(talk.answer(asked), talk.now))
    assert not questions(talk.sound(HANGOVER_S - AFTER_S, quiet=True)), "one question a pause"
    effects = talk.end()
    (final,) = kept(effects)
    assert not questions(effects)
    assert final.words == words(0, 2 * RATE_HZ)
    assert (final.start, final.stop) == (0, talk.position[0])


def test_one_that_is_being_heard_is_the_final_when_it_is_answered() -> None:
    talk, asked = silent()
    newest = talk.machine.picked(asked.request, talk.now)
    assert newest is not None
    talk.sound(HANGOVER_S - AFTER_S, quiet=True)
    assert not talk.end()[1:], "but for the news that speech has stopped"
    (final,) = kept(talk.machine.heard(talk.answer(newest), talk.now))
    assert final.words == words(0, 2 * RATE_HZ)


@pytest.mark.parametrize("failed", [False, True])
def test_a_final_is_asked_for_when_that_one_cannot_be_it(failed: bool) -> None:
    talk, asked = silent()
    newest = talk.machine.picked(asked.request, talk.now)
    assert newest is not None
    talk.sound(HANGOVER_S - AFTER_S, quiet=True)
    talk.end()
    if failed:
        answer = Answer(request=newest.request, engine="scripted", failed=True)
    else:
        answer = talk.answer(newest, conclusive=False)
    (final,) = questions(talk.machine.heard(answer, talk.now))
    assert (final.final, final.stop) == (True, talk.position[0])


def test_one_that_only_waits_does_not_count() -> None:
    talk, _ = silent()
    talk.sound(HANGOVER_S - AFTER_S, quiet=True)
    (final,) = questions(talk.end())
    assert final.final


def test_one_from_before_the_last_word_does_not_count() -> None:
    talk, asked = silent()
    talk.run(talk.machine.heard(talk.answer(asked), talk.now))
    talk.sound(0.25, quiet=False)
    talk.sound(0.15, quiet=True)
    (final,) = questions(talk.end())
    assert final.final


def test_one_that_is_being_heard_without_the_last_word_does_not_count() -> None:
    talk, asked = silent()
    assert talk.machine.picked(asked.request, talk.now) is not None
    talk.sound(0.25, quiet=False)
    talk.sound(0.15, quiet=True)
    (final,) = questions(talk.end())
    assert final.final


def test_it_is_asked_for_once_a_pause_however_long_it_waits() -> None:
    talk, _ = silent()
    assert not questions(talk.sound(0.35, quiet=True))
    talk.sound(0.25, quiet=False)
    assert len(questions(talk.sound(0.35, quiet=True))) == 1, "and again in the next"


def test_who_speaks_on_is_heard_while_it_is() -> None:
    talk, asked = silent()
    assert talk.machine.picked(asked.request, talk.now) is not None
    talk.sound(HANGOVER_S - AFTER_S, quiet=True)
    talk.end()
    talk.begin()
    (partial,) = questions(talk.sound(0.5, quiet=False))
    assert (partial.segment, partial.final) == (1, False)


def test_a_segment_cut_in_mid_speech_is_asked_about() -> None:
    talk, asked = silent()
    talk.run(talk.machine.heard(talk.answer(asked), talk.now))
    (final,) = questions(talk.end(over=False))
    assert final.final


def test_what_waits_is_forgotten_when_the_final_is_known() -> None:
    talk, asked = silent(msgspec.structs.replace(SETTINGS, partial_every_s=0.2))
    talk.run(talk.machine.heard(talk.answer(asked), talk.now))
    (late,) = questions(talk.sound(HANGOVER_S - AFTER_S, quiet=True))
    effects = talk.end()
    assert kept(effects)
    assert [effect.request for effect in effects if isinstance(effect, Forget)] == [late.request]
    assert talk.machine.picked(late.request, talk.now) is None


def test_a_long_rest_of_the_segment_is_heard() -> None:
    talk, asked = silent(msgspec.structs.replace(SETTINGS, partial_every_s=5.0))
    talk.run(talk.machine.heard(talk.answer(asked), talk.now))
    assert not questions(talk.sound(2.0, quiet=True))
    (final,) = questions(talk.end())
    assert final.stop == talk.position[0]


def test_an_engine_with_too_much_to_do_is_not_asked_at_each_pause() -> None:
    talk, asked = silent()
    answer = msgspec.structs.replace(talk.answer(asked), every_s=3.1 * SETTINGS.partial_every_s)
    talk.run(talk.machine.heard(answer, talk.now))
    talk.sound(0.25, quiet=False)
    assert not questions(talk.sound(0.3, quiet=True))


def test_without_a_pause_for_it_all_finals_are_asked_for() -> None:
    settings = MachineSettings(partial_every_s=0.1, partials_always=False)
    talk = Talk(1, settings=settings)
    talk.begin()
    talk.sound(1.0, quiet=False)
    talk.sound(HANGOVER_S, quiet=True)
    (final,) = [question for question in questions(talk.end()) if question.final]
    assert final.stop == talk.position[0]


@pytest.mark.parametrize("seed", range(100))
def test_every_segment_gets_one_final_with_all_its_words(seed: int) -> None:
    talk = Talk(seed, sure=talk_sure(seed), failing=0.1 * (seed % 3))
    spans: list[tuple[int, int]] = []
    for _ in range(8):
        talk.begin()
        start = talk.position[0]
        for _ in range(talk.random.randrange(1, 4)):
            talk.sound(talk.random.choice((0.25, 0.5, 1.0, 2.0)), quiet=False)
            talk.sound(0.25 * talk.random.randrange(2), quiet=True)
        spans.append((start, talk.speech))
        rest = HANGOVER_S - (talk.position[0] - talk.speech) / RATE_HZ
        talk.sound(rest, quiet=True)
        talk.end()
        talk.sound(talk.random.choice((0.2, 0.6, 1.2)), quiet=True)
    talk.settle()
    finals = talk.finals
    assert [final.segment for final in finals] == list(range(8))
    assert not any(final.failed for final in finals)
    assert [final.words for final in finals] == [words(start, stop) for start, stop in spans]
    asked = [question.segment for question in questions(talk.effects) if question.final]
    assert len(asked) == len(set(asked))
    if talk.sure == 1.0 and not talk.failing:
        assert len(asked) <= 4, "most came of partials"
    if talk.sure == 0.0:
        assert len(asked) == 8


def talk_sure(seed: int) -> float:
    return (0.0, 0.5, 1.0)[seed // 3 % 3]
