"""Words whose times are wrong make partials begin at the wrong place; nothing comes twice or is lost for that."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import msgspec
import pytest

from streamsrv.facts import RATE_HZ, Answer, Word
from streamsrv.session import hearing, trimming
from streamsrv.session.effects import AnyEffect, Hear
from streamsrv.session.settings import MachineSettings
from streamsrv.session.trimming import MOST_DOUBTED, doubtful
from tests.session.test_machine import check_stability
from tests.session.world import WORD, Waiting, spoken

FLOOR_S = 3.0
WRONG_BY = round(0.18 * RATE_HZ)
"""More than half a word."""
NEAR = round(0.06 * RATE_HZ)
"""A beginning that is wrong by no more is heard as if it were right."""
SETTINGS = MachineSettings(
    partial_every_s=0.3, trim_after_s=FLOOR_S, partial_first_s=0.5, partials_always=False, trim_finals=True
)


def said(text: str, start: int = 0) -> Word:
    return Word(text=text, start=start, stop=start + WORD, confidence=0.5)


def words(text: str) -> list[Word]:
    return [said(one, place * WORD) for place, one in enumerate(text.split())]


@pytest.mark.parametrize(
    ("given", "expected", "heard", "doubted"),
    [
        ("two six", "four two", "four two three", False),
        ("two six", "four", "four", False),
        ("six nine", "three", "nine three", True),
        ("six nine", "nine three", "nine three", False),
        ("six nine", "three eight", "eight", True),
        ("six nine", "three", "", True),
        ("two four", "one", "one one", True),
        ("two four", "one", "one one two", True),
        ("two four", "one one", "one one", False),
        ("two four", "one one", "one one one", True),
        ("two four", "one", "one two two", False),
        ("two one", "one", "one", False),
        ("Yes, Anna", "said so", "said, so", False),
        ("zero three", "", "zero three seven", True),
        ("zero three", "", "three seven", True),
        ("zero three", "", "seven three", False),
        ("zero three", "", "", False),
        ("—", "–", "—", True),
    ],
)
def test_an_answer_must_go_on_as_the_one_before_did(given: str, expected: str, heard: str, doubted: bool) -> None:
    assert doubtful(words(given), words(expected), words(heard)) == doubted


@dataclasses.dataclass
class Mistimed(Waiting):
    """An engine whose word times are wrong now and then, and that hears what Whisper hears from a wrong beginning.

    What sounds before the words it was given makes it say the last of them again; when the first of them is missing,
    it takes the next one for it, and one word is lost.
    """

    settings: MachineSettings = dataclasses.field(default_factory=lambda: SETTINGS)
    early: float = 0.3
    """Share of answers with words too early; the same share has them too late."""
    misled: int = 0

    def _answer(self, question: Hear) -> Sequence[AnyEffect]:
        first = -(-question.start // WORD) * WORD
        slots = list(range(first, question.stop - WORD + 1, WORD))
        if question.prefix:
            begins = int("".join(filter(str.isdigit, question.prefix[0].text))) * WORD
            slots = list(range(begins, question.stop - WORD + 1, WORD))
            off = begins - question.start
            given = len(question.prefix)
            self.misled += abs(off) > NEAR and len(slots) > given
            if off > NEAR:
                slots.insert(given, slots[given - 1])
            elif off < -NEAR:
                del slots[given : given + 1]
        by = self.random.choices((0, -WRONG_BY, WRONG_BY), (1 - 2 * self.early, self.early, self.early))[0]
        heard = tuple(self._word(slot, by, question) for slot in slots)
        return self.machine.heard(Answer(request=question.request, words=heard, engine="scripted"), self.now)

    def _word(self, slot: int, by: int, question: Hear) -> Word:
        start = max(question.start, slot + by)
        return Word(text=spoken(slot), start=start, stop=max(start, slot + WORD + by), confidence=0.5)


def monologue(seed: int) -> Mistimed:
    world = Mistimed(seed)
    for number in range(3):
        world.speak(0, world.random.randrange(12, 40) / 2, cause="length" if number < 2 else "vad")
    world.settle()
    return world


def wrong(world: Mistimed) -> int:
    """Finals that are not what was said."""
    return sum(
        [word.text for word in final.words]
        != [spoken(at) for at in range(-(-final.start // WORD) * WORD, final.stop - WORD + 1, WORD)]
        for final in world.finals
    )


@pytest.mark.parametrize("block", range(4))
def test_a_wrong_beginning_neither_doubles_nor_loses_a_word(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimming, "MOST_DOUBTED", 100.0)  # as long as a beginning needs proof
    misled = 0
    for seed in range(block * 50, block * 50 + 50):
        world = monologue(seed)
        check_stability(world)
        assert wrong(world) == 0, f"seed {seed}"
        misled += world.misled
    assert misled > 50, "these worlds do mislead"


def test_an_answer_that_is_not_doubted_would_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "doubtful", lambda *_: False)
    assert sum(wrong(monologue(seed)) for seed in range(20)) > 20


def test_a_doubted_answer_is_asked_for_again_at_once_from_the_old_beginning() -> None:
    class Watched(Mistimed):
        count = 0

        def _answer(self, question: Hear) -> Sequence[AnyEffect]:
            effects = super()._answer(question)
            for effect in effects:
                if isinstance(effect, Hear) and effect.start < question.start and effect.segment == question.segment:
                    self.count += 1
                    assert effect.stop >= question.stop
            return effects

    world = Watched(3, settings=msgspec.structs.replace(SETTINGS, partial_every_s=0.6))
    world.speak(0, 20.0)
    world.settle()
    assert world.count > 3, "they are what the answer brings, not what the next pause of partials does"


def test_an_engine_that_never_says_the_same_twice_does_not_hear_all_of_a_segment() -> None:
    class Fickle(Mistimed):
        count = 0

        def _word(self, slot: int, by: int, question: Hear) -> Word:
            self.count += 1
            text = spoken(slot)
            if slot // WORD * WORD + 4 * WORD > question.stop:  # the newest words are said anew each time
                text = f"{text}-{self.count}"
            return msgspec.structs.replace(super()._word(slot, 0, question), text=text)

    world = Fickle(1)
    world.speak(0, 40.0)
    world.settle()
    longest = max(one.stop - one.start for one in world.spans)
    assert FLOOR_S < longest / RATE_HZ <= MOST_DOUBTED * FLOOR_S + 1.0
