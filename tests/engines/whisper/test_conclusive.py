"""A partial that says it is conclusive says what a final of the same speech would say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamsrv.engines.base import Hypothesis
from streamsrv.engines.whisper import WhisperEngine
from tests.engines.whisper.asking import Samples, heard, recordings, window
from tests.engines.whisper.conftest import DIGITS, Begin
from tests.models import tone

RATE_HZ = 16_000
HEARD_S, HANGOVER_S = 0.2, 0.4
"""Silence that a partial has heard when it becomes a final, and that a final hears."""


def ended(audio: Samples, silence_s: float) -> Samples:
    return np.concatenate([audio, np.zeros(round(silence_s * RATE_HZ), np.int16)])


def both(engine: WhisperEngine, audio: Samples, **how: object) -> tuple[Hypothesis, Hypothesis]:
    """A partial after a moment of silence, and the final after the whole of it; each by a session of its own."""
    partial = window(engine, ended(audio, HEARD_S), final=False, **how)  # type: ignore[arg-type]
    final = window(engine, ended(audio, HANGOVER_S), final=True, **how)  # type: ignore[arg-type]
    return heard(engine, partial)[0], heard(engine, final)[0]


async def test_tones_have_the_same_words_and_times(begin: Begin, tones: Path) -> None:
    engine = await begin(tones)
    assert engine.abilities.conclusive
    for words in (["one"], ["red", "two", "gold"], list(tone.WORDS[:9])):
        partial, final = both(engine, tone.sound(words))
        assert partial.conclusive
        assert partial.words == final.words


@pytest.mark.speech
@pytest.mark.parametrize("floor", [1, 5])
async def test_people_have_the_same_words_and_times(begin: Begin, floor: int) -> None:
    engine = await begin(DIGITS, window_floor_s=floor)
    for person in recordings(DIGITS):
        partial, final = both(engine, person.audio)
        assert partial.conclusive
        assert [word.text for word in partial.words] == person.words == [word.text for word in final.words]
        ends = [(mine.stop - theirs.stop) / RATE_HZ for mine, theirs in zip(partial.words, final.words, strict=True)]
        assert max(map(abs, ends)) <= 0.1


async def test_silence_is_conclusive_and_says_what_was_promised(begin: Begin, tones: Path) -> None:
    engine = await begin(tones)
    partial, final = both(engine, np.zeros(RATE_HZ, np.int16), prefix=("one",))
    assert partial.conclusive
    assert partial.words == final.words


@pytest.mark.parametrize(
    "settings",
    [{"beam": 5}, {"final_window": "full"}, {"partial_words": "estimated"}],
    ids=lambda each: next(iter(each)),
)
async def test_finals_that_are_heard_in_another_way_are_asked_for(
    begin: Begin, tones: Path, settings: dict[str, object]
) -> None:
    engine = await begin(tones, **settings)
    assert not engine.abilities.conclusive
    partial, _ = both(engine, tone.sound(["one", "two"]))
    assert not partial.conclusive


async def test_what_looks_wrong_is_heard_again_as_a_final(begin: Begin, tones: Path) -> None:
    engine = await begin(tones, least_logprob=0.0)
    partial, _ = both(engine, tone.sound(["one", "two"]))
    assert not partial.conclusive, "a final would be tried at other temperatures"


async def test_an_unsure_language_is_left_to_the_final(
    begin: Begin, polyglot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamsrv.engines._whisper.decoding.LANGUAGE_SURE", 1.1)
    engine = await begin(polyglot)
    partial, _ = both(engine, tone.sound(["one", "two"]))
    assert not partial.conclusive, "a final keeps its language for the session, whatever it is"
    partial, _ = both(engine, tone.sound(["one", "two"]), language="de")
    assert partial.conclusive
