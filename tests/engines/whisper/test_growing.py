"""People's digits, heard as they grow: what partials promise and leave out must not cost a word of the final."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from streamsrv.engines._whisper.words import moved
from streamsrv.engines.base import Hypothesis, Window
from streamsrv.engines.whisper import WhisperEngine
from streamsrv.facts import Answer
from streamsrv.runtime.engines import machine_settings
from streamsrv.runtime.settings import SessionSettings
from streamsrv.session import hearing
from streamsrv.session.effects import AnyEffect, Hear
from tests.engines.whisper.asking import Recording, recordings
from tests.engines.whisper.conftest import DIGITS, Begin
from tests.session.test_machine import check_stability
from tests.session.world import Waiting

pytestmark = pytest.mark.speech


@dataclass(kw_only=True)
class Room(Waiting):
    """A world in which a person speaks and Whisper hears, each question in its turn."""

    engine: WhisperEngine
    person: Recording
    waits_s: tuple[float, float] = (0.0, 0.1)
    takes_s: tuple[float, float] = (0.02, 0.1)

    def __post_init__(self) -> None:
        self.attention = self.engine.attend(language=None)
        self.attention.take(self.person.audio.tobytes(), 0)
        super().__post_init__()

    def _answer(self, question: Hear) -> Sequence[AnyEffect]:
        (heard,) = self.engine.hear(
            [
                Window(
                    attention=self.attention,
                    start=question.start,
                    stop=question.stop,
                    final=question.final,
                    prefix=question.prefix,
                )
            ]
        )
        assert isinstance(heard, Hypothesis)
        words = tuple(moved(heard.words, question.start))
        return self.machine.heard(Answer(request=question.request, words=words), self.now)

    def listen(self) -> list[str]:
        """The words of the final."""
        self.speak(0, len(self.person.audio) // 1_600 / 10)
        self.settle()
        self.attention.close()
        check_stability(self)
        return [word.text for final in self.finals for word in final.words]


async def errors(begin: Begin, floor: int, seeds: int) -> list[tuple[int, list[str], list[str]]]:
    """Recordings whose final is wrong: when begun, what was said, what was heard."""
    engine = await begin(DIGITS, window_floor_s=floor)
    settings = machine_settings(engine.abilities, SessionSettings())
    found = []
    for seed in range(seeds):
        for person in recordings(DIGITS):
            heard = Room(seed=seed, engine=engine, person=person, settings=settings).listen()
            if heard != person.words:
                found.append((seed, person.words, heard))
    return found


@pytest.mark.parametrize("floor", [1, 5])
async def test_no_word_comes_twice_or_is_lost(begin: Begin, floor: int) -> None:
    assert await errors(begin, floor, 6) == []


async def test_beginnings_that_nobody_doubts_cost_words(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "doubtful", lambda *_: False)
    assert await errors(begin, 1, 3), "else the test above proves nothing"
