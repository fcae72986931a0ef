"""What is put before an answer: the words it must begin with, context, language and task."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamsrv.engines._whisper import prompts
from streamsrv.engines.base import Window
from streamsrv.engines.whisper import WhisperEngine
from streamsrv.errors import BadRequest, EngineBusy, UnsupportedLanguage
from streamsrv.facts import Word
from tests.engines.whisper.asking import heard, said, texts, window
from tests.engines.whisper.conftest import DIGITS, Begin
from tests.models import tone


def word(text: str, *, glued: bool = False) -> Word:
    return Word(text=text, start=0, stop=0, confidence=1.0, glued=glued)


async def test_an_answer_begins_with_the_words_it_must(begin: Begin, tones: Path) -> None:
    engine = await begin(tones)
    audio = tone.sound(["one", "two", "three", "four"])
    for final in (True, False):
        assert said(engine, audio, final=final, prefix=["one", "two"]) == ["one", "two", "three", "four"]
        (wrong,) = heard(engine, window(engine, audio, final=final, prefix=["black", "gold"]))
        assert texts(wrong) == ["black", "gold", "three", "four"], "what is promised stays, whatever is heard now"
        assert [word.confidence > 0.01 for word in wrong.words] == [False, False, True, True]
    assert said(engine, audio, prefix=["one", "two", "three", "four"]) == ["one", "two", "three", "four"]


async def test_prefixes_of_different_length_share_a_batch(begin: Begin, tones: Path) -> None:
    engine = await begin(tones)
    words = ["nine", "eight", "seven", "six", "five"]
    windows = [window(engine, tone.sound(words), prefix=words[:count], final=count % 2 == 0) for count in range(6)]
    assert [texts(answer) for answer in heard(engine, *windows)] == [words] * 6


async def test_a_promise_outlives_silence(begin: Begin, tones: Path) -> None:
    engine = await begin(tones)
    for final in (True, False):
        assert said(engine, tone.sound([], lead_s=1.0), prefix=["one", "two"], final=final) == ["one", "two"]


async def test_glued_words_stay_glued(begin: Begin) -> None:
    engine = await begin(DIGITS)
    attention = engine.attend(language="en")
    attention.take(bytes(32_000), 0)
    prefix = (word("yes"), word(",", glued=True))
    (answer,) = heard(engine, Window(attention=attention, start=0, stop=16_000, final=True, prefix=prefix))
    assert [(each.text, each.glued) for each in answer.words] == [("yes", False), (",", True)]


async def test_context_stands_before_the_prompt(begin: Begin, prompted: Path) -> None:
    engine = await begin(prompted, partial_words="estimated", doubt_sounds=False)
    audio, words = tone.sound(["one", "two", "three"]), ["one", "two", "three"]
    for prompt, hotwords in (("two one nine", ()), ("nine", ("red", "gold")), ("", ("red", "gold"))):
        # Four tokens: <|startofprev|> and three; between two hot words stands a comma.
        right = said(engine, audio, final=False, prompt=prompt, hotwords=hotwords) == words
        assert right == (bool(prompt) != bool(hotwords)), (prompt, hotwords)
    assert said(engine, audio, final=False) != words, "without its context this model counts wrong"


async def test_sessions_with_and_without_context_are_asked_together(begin: Begin, tones: Path) -> None:
    engine = await begin(tones, partial_words="estimated")
    words = ["one", "two", "three"]
    windows = [
        window(engine, tone.sound(words), final=False, prompt="gold " * (n // 3) if n % 3 == 0 else "")
        for n in range(9)
    ]
    answers = heard(engine, *windows)
    assert [texts(answer) for n, answer in enumerate(answers) if n % 3 or n == 0] == [words] * 7


async def test_a_long_prompt_leaves_room_for_the_answer(begin: Begin, prompted: Path) -> None:
    engine = await begin(prompted)
    asked = window(engine, tone.sound(["one"]), prompt="gold " * 5_000, hotwords=("red",) * 5_000)
    heard(engine, asked)


async def test_the_language_is_found_once_and_kept(begin: Begin, polyglot: Path) -> None:
    engine = await begin(polyglot)
    assert engine.abilities.languages is None
    attention = engine.attend(language=None)
    audio = tone.sound(["gold", "red", "one", "two"])
    attention.take(audio.tobytes(), 0)
    (german,) = heard(engine, Window(attention=attention, start=0, stop=len(audio), final=False))
    assert (texts(german), german.language) == (["gold", "red", "one", "two"], "de")
    (kept,) = heard(engine, Window(attention=attention, start=16_000, stop=len(audio), final=True))
    assert (texts(kept), kept.language) == (["one", "two"], "de"), "alone it would be English"
    (english,) = heard(engine, window(engine, tone.sound(["one", "two"])))
    assert english.language == "en"


async def test_languages_are_found_for_those_who_gave_none(begin: Begin, polyglot: Path) -> None:
    engine = await begin(polyglot)
    audio = {"de": tone.sound(["gold", "one"]), "en": tone.sound(["one", "gold"])}
    windows = [window(engine, audio["de" if n % 2 else "en"], language="de" if n % 3 == 0 else None) for n in range(8)]
    answers = heard(engine, *windows)
    assert [answer.language for answer in answers] == ["de" if n % 3 == 0 or n % 2 else "en" for n in range(8)]
    assert [texts(answer) for answer in answers] == [["gold", "one"] if n % 2 else ["one", "gold"] for n in range(8)]


async def test_a_language_is_taken_as_a_tag(begin: Begin, polyglot: Path) -> None:
    engine = await begin(polyglot)
    assert heard(engine, window(engine, tone.sound(["one"]), language="de-AT"))[0].language == "de"
    assert said(engine, tone.sound(["one", "red"]), language="EN_us") == ["one", "red"]
    with pytest.raises(UnsupportedLanguage, match="tlh") as refused:
        engine.attend(language="tlh")
    assert "de" in refused.value.hint


async def test_a_model_for_english_says_so(begin: Begin, tones: Path) -> None:
    engine = await begin(tones)
    assert engine.abilities.languages == ("en",)
    with pytest.raises(UnsupportedLanguage):
        engine.attend(language="de")
    with pytest.raises(BadRequest, match="one language"):
        engine.attend(language=None, task="translate")


async def test_tasks(begin: Begin, polyglot: Path) -> None:
    engine = await begin(polyglot)
    attention = engine.attend(language="de", task="translate")
    audio = tone.sound(["gold", "one"])
    attention.take(audio.tobytes(), 0)
    assert texts(heard(engine, Window(attention=attention, start=0, stop=len(audio), final=True))[0]) == ["gold", "one"]
    with pytest.raises(BadRequest, match="task"):
        engine.attend(language="de", task="sing")


def test_an_engine_that_is_not_started_says_that_it_is_busy() -> None:
    with pytest.raises(EngineBusy):
        WhisperEngine().attend(language=None)


@pytest.mark.parametrize(
    ("seconds", "prefix", "prompt", "language", "most"),
    [
        (1, 0, 2, "en", 18),
        (5, 0, 2, "en", 58),
        (5, 0, 4, "hi", 158),
        (1, 40, 2, "en", 48),
        (30, 0, 2, "th", 224),
        (20, 0, 226, "en", 208),
        (30, 0, 440, "en", 7),
    ],
)
def test_an_answer_is_bounded(seconds: int, prefix: int, prompt: int, language: str, most: int) -> None:
    assert prompts.most_tokens(seconds * 16_000, prefix, prompt, language=language, tokens_per_s=10) == most
    longest = prompts.longest(most, prompt)
    assert min(longest // 2, longest - prompt) >= min(most, 448 - prompt)
    assert longest <= 448
