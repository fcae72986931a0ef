"""People speak, or nobody does: right words from human voices, and none that were not said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamsrv.engines._whisper.guards import compression
from streamsrv.engines.base import Window
from tests.engines.whisper import sounds
from tests.engines.whisper.asking import Recording, heard, recordings, said, texts, window
from tests.engines.whisper.conftest import DIGITS, Begin

pytestmark = pytest.mark.speech
RATE_HZ = 16_000


@pytest.fixture(scope="module")
def people() -> list[Recording]:
    return recordings(DIGITS)


@pytest.mark.parametrize(
    "settings",
    [
        {"window_floor_s": 5},
        {"window_floor_s": 1},
        {"window_floor_s": 5, "beam": 5},
        {"window_floor_s": 5, "final_window": "full"},
        {"window_floor_s": 5, "compute_type": "float32"},
        {"window_floor_s": 8, "batch": 3, "partial_words": "estimated"},
    ],
    ids=str,
)
async def test_human_digits_are_exact(begin: Begin, people: list[Recording], settings: dict[str, object]) -> None:
    engine = await begin(DIGITS, **settings)
    for final in (True, False):
        answers = heard(engine, *(window(engine, person.audio, final=final) for person in people))
        assert [texts(answer) for answer in answers] == [person.words for person in people]


async def test_at_the_cost_of_tiny_it_says_the_same(begin: Begin, costly: Path, people: list[Recording]) -> None:
    engine = await begin(costly, window_floor_s=5)
    answers = heard(engine, *(window(engine, person.audio) for person in people))
    assert [texts(answer) for answer in answers] == [person.words for person in people]


@pytest.mark.parametrize("final", [True, False])
async def test_when_every_word_is_given_none_is_invented_after_them(
    begin: Begin, people: list[Recording], final: bool
) -> None:
    engine = await begin(DIGITS, window_floor_s=5)
    asked = (window(engine, person.audio, final=final, prefix=person.words) for person in people)
    assert [texts(answer) for answer in heard(engine, *asked)] == [person.words for person in people]


async def test_words_end_where_people_end_them(begin: Begin, people: list[Recording]) -> None:
    engine = await begin(DIGITS, window_floor_s=5)
    answers = heard(engine, *(window(engine, person.audio) for person in people))
    errors = [
        abs(word.stop / RATE_HZ - end)
        for answer, person in zip(answers, people, strict=True)
        for word, end in zip(answer.words, person.ends_s, strict=True)
    ]
    assert np.median(errors) < 0.06
    assert np.percentile(errors, 80) < 0.3
    for answer in answers:
        bounds = [place for word in answer.words for place in (word.start, word.stop)]
        assert bounds == sorted(bounds)


async def test_the_unchanged_transcribe_says_the_same(begin: Begin, people: list[Recording]) -> None:
    from faster_whisper import WhisperModel

    engine = await begin(DIGITS, final_window="full", beam=5)
    whisper = WhisperModel(str(DIGITS), device="cpu", compute_type="int8", cpu_threads=1)
    for person in people[:4]:
        audio = person.audio.astype(np.float32) / 32_768
        segments, _ = whisper.transcribe(audio, language="en", beam_size=5, without_timestamps=True)
        assert said(engine, person.audio) == "".join(segment.text for segment in segments).split()


async def test_any_wrong_word_may_be_forced_and_the_rest_goes_on(begin: Begin, people: list[Recording]) -> None:
    engine = await begin(DIGITS, window_floor_s=5)
    for person in people[:6]:
        right, wrong = person.words[:2], ["please", *person.words[1:2]]
        assert said(engine, person.audio, prefix=right) == person.words
        assert said(engine, person.audio, prefix=wrong)[:2] == wrong


# --- nobody speaks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sounds.NOTHING)
async def test_nobody_speaks_and_nothing_is_said(begin: Begin, name: str) -> None:
    engine = await begin(DIGITS, window_floor_s=5)
    audios = [
        sounds.samples(sounds.NOTHING[name](seconds, seed)) for seconds in (1.0, 2.5, 6.0, 14.0) for seed in (1, 2)
    ]
    for final in (True, False):
        for answer in heard(engine, *(window(engine, audio, final=final) for audio in audios)):
            assert texts(answer) == []


async def test_without_the_guards_this_model_does_invent(begin: Begin) -> None:
    engine = await begin(DIGITS, window_floor_s=5, doubt_sounds=False, temperatures=(), most_no_speech=1.0)
    invented = [name for name in ("hum", "music") if said(engine, sounds.samples(sounds.NOTHING[name](2.5, 1)))]
    assert invented == ["hum", "music"], "else the test above would prove nothing"


@pytest.mark.parametrize("begin_s", [0.5, 0.75, 0.9, 1.1, 1.3, 1.7])
async def test_a_cut_word_is_right_or_missing(begin: Begin, people: list[Recording], begin_s: float) -> None:
    engine = await begin(DIGITS, window_floor_s=5)
    person = people[1]
    audio = person.audio[round(begin_s * RATE_HZ) : round((begin_s + 1.6) * RATE_HZ)]
    words = said(engine, audio)
    # In order, each one a word that was said in or around the piece.
    left = iter(person.words)
    assert all(any(word == spoken for spoken in left) for word in words), words


async def test_a_person_who_repeats_is_believed_and_a_loop_is_not(begin: Begin, people: list[Recording]) -> None:
    engine = await begin(DIGITS, window_floor_s=5)
    nine = people[1].audio[round(0.928 * RATE_HZ) : round(1.605 * RATE_HZ)]
    for repeats in (2, 6, 12):
        words = said(engine, np.tile(nine, repeats))
        assert set(words) == {"nine"}
        assert repeats / 2 < len(words) <= repeats
    assert compression(" nine" * 12) > 2.4, "or it would not look like a loop"


async def test_loud_noise_around_speech_hides_words_but_adds_none(begin: Begin, people: list[Recording]) -> None:
    engine = await begin(DIGITS, window_floor_s=5)
    chance, person = np.random.default_rng(1), people[1]
    noisy = person.audio + 0.1 * person.audio.std() * chance.standard_normal(len(person.audio))
    assert said(engine, noisy.astype(np.int16)) == person.words


async def test_quiet_people_are_heard(begin: Begin, people: list[Recording]) -> None:
    engine = await begin(DIGITS, window_floor_s=5)
    right = [said(engine, np.round(person.audio / 10).astype(np.int16)) == person.words for person in people]
    assert sum(right) >= 10, "20 dB quieter"


async def test_speech_after_a_long_silence_is_heard(begin: Begin, people: list[Recording]) -> None:
    engine = await begin(DIGITS, window_floor_s=5)
    person = people[0]
    attention = engine.attend(language="en")
    attention.take(bytes(2 * 3 * RATE_HZ), 0)
    attention.take(person.audio.tobytes(), 3 * RATE_HZ)
    attention.forget(2 * RATE_HZ)
    stop = 3 * RATE_HZ + len(person.audio)
    (answer,) = heard(engine, Window(attention=attention, start=int(2.7 * RATE_HZ), stop=stop, final=True))
    assert texts(answer) == person.words


def test_the_model_carries_its_page() -> None:
    assert "CC BY-SA 4.0" in (Path(DIGITS) / "README.md").read_text("utf-8")
