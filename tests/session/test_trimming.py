"""A long segment is not heard from its start again and again, and nothing of it is lost by that."""

from __future__ import annotations

import msgspec
import pytest

from streamsrv import events
from streamsrv.facts import RATE_HZ, Answer, SpeechBegan, Word
from streamsrv.session.effects import AnyEffect, Hear
from streamsrv.session.settings import MachineSettings
from streamsrv.session.trimming import UNTRIMMED, Trim, trimmed
from tests.session.test_machine import check_stability, check_text, conversation
from tests.session.world import WORD, World, spoken

FLOOR_S = 5.0
SEGMENT_S = 20.0
ROUND_S = 1.6
"""Between two trims at most: the engine picks a question within 0.6 s and answers it within 0.6 s, the next one comes
within 0.3 s, and audio within 0.1 s."""
SETTINGS = MachineSettings(
    partial_every_s=0.3, trim_after_s=FLOOR_S, partial_first_s=0.5, partials_always=False, final_within_s=1.0
)


def stable(count: int) -> tuple[Word, ...]:
    return tuple(Word(text=f"w{n}", start=n * WORD, stop=(n + 1) * WORD, confidence=0.5) for n in range(count))


def at(seconds: float) -> int:
    return round(seconds * RATE_HZ)


def test_a_span_within_the_floor_is_left_alone() -> None:
    assert trimmed(UNTRIMMED, stable(10), start=0, stop=at(5), settings=SETTINGS) is UNTRIMMED


def test_a_longer_one_begins_at_the_first_stable_word_that_makes_it_short() -> None:
    trim = trimmed(UNTRIMMED, stable(16), start=0, stop=at(5.1), settings=SETTINGS)
    assert trim == Trim(start=at(2.25), words=9)


def test_stable_words_are_kept_at_its_beginning() -> None:
    trim = trimmed(UNTRIMMED, stable(6), start=0, stop=at(5.1), settings=SETTINGS)
    assert trim == Trim(start=at(0.5), words=2), "of 1.5 stable seconds 0.8 stay"


def test_without_stable_words_nothing_is_left_out() -> None:
    assert trimmed(UNTRIMMED, (), start=0, stop=at(9), settings=SETTINGS) is UNTRIMMED
    assert trimmed(UNTRIMMED, stable(1), start=0, stop=at(9), settings=SETTINGS) is UNTRIMMED


def test_a_trim_only_moves_on() -> None:
    before = Trim(start=at(4), words=16)
    assert trimmed(before, stable(18), start=0, stop=at(9.5), settings=SETTINGS) == before
    after = trimmed(before, stable(36), start=0, stop=at(9.5), settings=SETTINGS)
    assert after.words > before.words
    assert after.start > before.start


def test_the_boundary_is_in_the_middle_of_a_pause() -> None:
    left = Word(text="a", start=0, stop=at(1), confidence=0.5)
    right = Word(text="b", start=at(3), stop=at(4), confidence=0.5)
    trim = trimmed(UNTRIMMED, (left, right), start=0, stop=at(5.5), settings=SETTINGS)
    assert trim == Trim(start=at(2), words=1)


class Windowed(World):
    """A world whose engine lets questions wait, asks for their newest form, and hears nothing outside its window."""

    def _carry_out(self, effect: AnyEffect) -> None:
        if isinstance(effect, Hear) and not self.mute:
            self.spans = getattr(self, "spans", [])
            self.after(self.random.uniform(0.0, 0.6), lambda: self._pick(effect))
            return
        super()._carry_out(effect)

    def _pick(self, question: Hear) -> list[AnyEffect]:
        newest = self.machine.picked(question.request, self.now)
        if newest is None:
            return []
        assert newest.stop >= question.stop
        assert newest.request == question.request
        self.spans.append((self.now, newest))
        self.after(self.random.uniform(0.01, 0.6), lambda: self._answer(newest))
        return []

    def _answer(self, question: Hear) -> list[AnyEffect]:
        """Words of the window; a wrong one now and then, also among those the decoder was told to begin with."""
        first = -(-question.start // WORD) * WORD
        words = []
        for place, start in enumerate(range(first, question.stop - WORD + 1, WORD)):
            text = spoken(start)
            if self.forced and place < len(question.prefix):
                text = question.prefix[place].text
            elif not question.final and self.random.random() < self.unsteady:
                text = "wrong"
            words.append(Word(text=text, start=start, stop=start + WORD, confidence=0.5))
        return self.machine.heard(Answer(request=question.request, words=tuple(words), engine="scripted"), self.now)

    forced = True
    spans: list[tuple[float, Hear]]


def monologue(seed: int, *, forced: bool, finals: bool, segments: int = 3) -> Windowed:
    world = Windowed(seed, settings=msgspec.structs.replace(SETTINGS, trim_finals=finals), unsteady=0.1)
    world.forced = forced
    for number in range(segments):
        world.speak(0, world.random.uniform(1.0, 20.0), cause="length" if number < segments - 1 else "vad")
    world.settle()
    return world


@pytest.mark.parametrize("block", range(10))
def test_over_thousands_of_schedules_no_stable_word_is_taken_back_and_no_word_is_lost(block: int) -> None:
    for seed in range(block * 100, block * 100 + 100):
        for forced in (True, False):
            world = monologue(seed, forced=forced, finals=seed % 2 == 0, segments=2)
            check_stability(world)
            for final in world.finals:
                wrong = sum(word.text == "wrong" for word in final.words)
                said = [word.text for word in final.words]
                true = [spoken(at) for at in range(-(-final.start // WORD) * WORD, final.stop - WORD + 1, WORD)]
                if forced:
                    assert len(said) == len(true), f"seed {seed}: a word was lost or doubled at a trim"
                    assert sum(ours != theirs for ours, theirs in zip(said, true, strict=True)) == wrong, f"seed {seed}"
                else:
                    assert abs(len(said) - len(true)) <= 1 + wrong, f"seed {seed}"


@pytest.mark.parametrize(
    ("trim_finals", "longest_final_s"),
    [
        pytest.param(False, SEGMENT_S, id="finals hear the whole segment"),
        pytest.param(True, FLOOR_S + ROUND_S, id="or not"),
    ],
)
def test_an_hour_of_monologue_costs_per_second_what_its_first_minute_costs(
    trim_finals: bool, longest_final_s: float
) -> None:
    world = Windowed(1, settings=msgspec.structs.replace(SETTINGS, trim_finals=trim_finals), unsteady=0.0)
    begun = world.now
    for _ in range(180):
        world.speak(0, SEGMENT_S, cause="length")
    costs = [0.0] * 61
    for when, question in world.spans:
        costs[int((when - begun) / 60)] += (question.stop - question.start) / RATE_HZ
    assert sum(costs) / 60 <= 1.1 * costs[0]
    assert max(costs) <= 1.3 * costs[0], "no minute is much dearer, whatever chance does to the engine's answers"
    partials = [(q.stop - q.start) / RATE_HZ for _, q in world.spans if not q.final]
    assert max(partials) <= FLOOR_S + 0.7, "never much longer than what the engine hears at its lowest price"
    finals = [(q.stop - q.start) / RATE_HZ for _, q in world.spans if q.final]
    assert len(finals) >= 179
    assert max(finals) <= longest_final_s
    assert trim_finals or min(finals) == SEGMENT_S


def _last_asked(world: World) -> int:
    return [effect for effect in world.effects if isinstance(effect, Hear)][-1].request


def test_a_word_said_again_and_again_is_counted_right_over_every_trim() -> None:
    world = World(6, mute=True, settings=SETTINGS)
    world.run(world.machine.marked(SpeechBegan(channel=0, start=0, position=0), world.now))
    for _ in range(40):
        world.pass_audio(0, 0.5)
        while question := world.machine.picked(_last_asked(world), world.now):  # a doubted answer asks again
            newest = question
            first = -(-newest.start // WORD)
            words = tuple(
                Word(text="go", start=n * WORD, stop=(n + 1) * WORD, confidence=0.5)
                for n in range(first, newest.stop // WORD)
            )
            world.run(world.machine.heard(Answer(request=newest.request, words=words), world.now))
    partial = [event for event in world.said if isinstance(event, events.Partial)][-1]
    assert newest.start > 0
    assert partial.text.split() == ["go"] * (newest.stop // WORD)


def test_finals_begin_where_the_partials_did_when_so_set() -> None:
    world = monologue(6, forced=True, finals=True)
    trims = [q for _, q in world.spans if q.final and q.start % (20 * RATE_HZ)]
    assert any((q.stop - q.start) / RATE_HZ <= FLOOR_S + 0.7 and q.prefix for q in trims)


def test_a_first_partial_waits_for_half_a_second_of_audio() -> None:
    world = Windowed(2, settings=SETTINGS)
    world.speak(0, 2.0)
    first = next(effect for effect in world.effects if isinstance(effect, Hear))
    assert (first.stop - first.start) / RATE_HZ == pytest.approx(0.5)


def test_a_pace_under_load_is_kept_until_the_engine_takes_it_back() -> None:
    world = World(3, mute=True, settings=SETTINGS)
    world.run(world.machine.marked(SpeechBegan(channel=0, start=0, position=0), world.now))
    for every_s in (0.0, 1.2, 0.0):
        world.pass_audio(0, 2.0)
        asked = [effect for effect in world.effects if isinstance(effect, Hear)]
        now = world.now
        world.run(world.machine.heard(Answer(request=asked[-1].request, every_s=every_s), now))
        before = len([effect for effect in world.effects if isinstance(effect, Hear)])
        world.pass_audio(0, 2.0)
        world.run(world.machine.heard(Answer(request=before - 1, every_s=every_s), world.now))
        assert world.machine._hearing._every_s == max(0.3, every_s)


def test_a_question_nobody_wants_any_more_is_not_picked() -> None:
    world = World(4, mute=True, settings=SETTINGS)
    world.speak(0, 2.0)
    partial, final = [effect for effect in world.effects if isinstance(effect, Hear)]
    assert world.machine.picked(partial.request, world.now) is None
    assert world.machine.picked(final.request, world.now) == final
    assert world.machine.picked(99, world.now) is None
    world.speak(0, 2.0)
    assert len([e for e in world.effects if isinstance(e, Hear)]) == 4, "the vanished partial blocks no other"


def test_a_partial_that_waited_is_as_old_as_its_newest_audio() -> None:
    world = World(5, mute=True, settings=SETTINGS)
    world.run(world.machine.marked(SpeechBegan(channel=0, start=0, position=0), world.now))
    world.pass_audio(0, 2.0)
    asked = next(effect for effect in world.effects if isinstance(effect, Hear))
    newest = world.machine.picked(asked.request, world.now)
    assert newest is not None
    assert newest.stop == 2 * RATE_HZ
    words = tuple(Word(text="a", start=0, stop=WORD, confidence=0.5) for _ in range(1))
    said = world.machine.heard(Answer(request=asked.request, words=words), world.now + 0.25)
    partial = next(effect.event for effect in said if hasattr(effect, "event"))
    assert isinstance(partial, events.Partial)
    assert (partial.stop, partial.lag_ms) == (2 * RATE_HZ, 250)


def test_engines_that_never_pick_see_no_difference() -> None:
    check_text(conversation(11))
