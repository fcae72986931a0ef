"""Answers that look wrong: tried again, cut, or dropped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from streamsrv.engines._whisper.decoding import Asked, Decoder, Encodings, Heard
from streamsrv.engines._whisper.settings import WhisperSettings
from tests.engines.whisper.asking import said
from tests.engines.whisper.conftest import Begin
from tests.models import tone


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tone Whisper that never ends its answers."""
    return tone.make(tmp_path_factory.mktemp("models") / "endless", layout=tone.Layout(endless=True))


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Temperatures at which something was decoded."""
    found: list[float] = []
    generate = Decoder._generate

    def noting(
        self: Decoder, asked: Sequence[Asked], encodings: Encodings, places: Sequence[int], temperature: float = 0.0
    ) -> list[Heard]:
        found.append(temperature)
        return generate(self, asked, encodings, places, temperature)

    monkeypatch.setattr(Decoder, "_generate", noting)
    return found


@pytest.mark.parametrize("final", [True, False])
async def test_an_answer_that_does_not_end_is_cut(begin: Begin, endless: Path, final: bool) -> None:
    engine = await begin(endless, temperatures=())
    words = said(engine, tone.sound(["one", "two"]), final=final)
    assert words[:2] == ["one", "two"]
    assert len(words) <= 4, "of the loop it goes on with, one round"


@pytest.mark.parametrize("final", [True, False])
async def test_an_answer_that_does_not_end_is_tried_again(
    begin: Begin, endless: Path, tried: list[float], final: bool
) -> None:
    engine = await begin(endless, temperatures=(0.2, 0.6))
    said(engine, tone.sound(["one", "two"]), final=final)
    assert tried == ([0.0, 0.2, 0.6] if final else [0.0])


async def test_what_looks_right_is_not_tried_again(begin: Begin, tones: Path, tried: list[float]) -> None:
    engine = await begin(tones)
    assert said(engine, tone.sound(["one"] * 12)) == ["one"] * 12, "repeats itself, but no faster than people do"
    assert tried == [0.0]


async def test_what_is_unlikely_is_tried_again_and_the_best_is_kept(
    begin: Begin, tones: Path, tried: list[float]
) -> None:
    engine = await begin(tones, least_logprob=0.0, temperatures=(0.2, 1.0))
    words = ["red", "gold", "nine"]
    assert said(engine, tone.sound(words)) == words
    assert tried == [0.0, 0.2, 1.0]
    assert said(engine, tone.sound(words), final=False) == words
    assert tried == [0.0, 0.2, 1.0, 0.0], "a partial has no time for that"


async def test_the_model_may_say_that_nobody_spoke(begin: Begin, tones: Path) -> None:
    engine = await begin(tones, most_no_speech=0.0, least_logprob=0.0)
    for final in (True, False):
        assert said(engine, tone.sound(["one", "two"]), final=final) == []
        assert said(engine, tone.sound(["one", "two"]), final=final, prefix=["one"]) == ["one"]


def test_the_likeliest_of_wrong_answers_is_kept() -> None:
    def heard(logprob: float, *, full: bool = False) -> Heard:
        return Heard([round(-10 * logprob)], logprob, 0.0, full)

    class Scripted(Decoder):
        """Answers come from a list; which one is taken is real."""

        def __init__(self, answers: list[Heard]) -> None:
            self._settings = WhisperSettings(temperatures=(0.2, 0.4, 0.6))
            self.answers = answers

        def _generate(
            self, asked: Sequence[Asked], encodings: Encodings, places: Sequence[int], temperature: float = 0.0
        ) -> list[Heard]:
            return [self.answers.pop(0)]

        def _wrong(self, one: Asked, heard: Heard) -> bool:
            return heard.full or heard.logprob < -1

        def best(self, first: Heard) -> Heard:
            class Final:
                class task:
                    class window:
                        final = True

            return self._try_again([cast(Asked, Final)], [first], cast(Encodings, None))[0]

    assert Scripted([heard(-3), heard(-2), heard(-2.5)]).best(heard(-4)) == heard(-2)
    assert Scripted([heard(-3), heard(-3), heard(-3)]).best(heard(-2)) == heard(-2)
    assert Scripted([heard(-3), heard(-0.5)]).best(heard(-2)) == heard(-0.5), "and then no more is tried"
    assert Scripted([heard(-3), heard(-5), heard(-4)]).best(heard(-0.1, full=True)) == heard(-3), "it ended by itself"
