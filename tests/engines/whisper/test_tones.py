"""Exact words and times from made sounds: one window or many, at any precision, and never another session's words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamsrv.engines.base import Window
from tests.engines.whisper.asking import by_threads, heard, in_batches, said, sentences, texts, window
from tests.engines.whisper.conftest import Begin
from tests.models import tone

SLOT = round(tone.SLOT_S * tone.RATE_HZ)


@pytest.mark.parametrize("compute_type", ["int8", "float32"])
async def test_words_and_times_are_exact(begin: Begin, tones: Path, compute_type: str) -> None:
    engine = await begin(tones, compute_type=compute_type)
    words = ["one", "two", "three", "red", "green", "gold"]
    (answer,) = heard(engine, window(engine, tone.sound(words)))
    assert texts(answer) == words
    assert [word.start for word in answer.words] == [n * SLOT for n in range(6)]
    assert [word.stop for word in answer.words][:-1] == [n * SLOT for n in range(1, 6)]
    assert answer.words[-1].stop == pytest.approx(6 * SLOT, abs=320), "the last encoder frame belongs to the end"
    assert all(word.confidence > 0.99 and not word.estimated for word in answer.words)
    assert answer.language == "en"


@pytest.mark.parametrize("compute_type", ["int8", "float32"])
@pytest.mark.parametrize("together", [1, 2, 8, 32])
async def test_no_session_hears_another(begin: Begin, tones: Path, together: int, compute_type: str) -> None:
    engine = await begin(tones, compute_type=compute_type, batch=32)
    wanted = sentences(32, seed=together)
    assert in_batches(engine, wanted, together) == wanted


async def test_threads_may_ask_at_once(begin: Begin, tones: Path) -> None:
    engine = await begin(tones, num_workers=2)
    assert engine.abilities.parallel == 2
    wanted = sentences(24, seed=5)
    assert await by_threads(engine, wanted, 3) == wanted


@pytest.mark.parametrize("final_window", ["fitted", "full"])
async def test_fitted_and_full_windows_say_the_same(begin: Begin, tones: Path, final_window: str) -> None:
    engine = await begin(tones, final_window=final_window)
    for words in sentences(6, longest=40, seed=7):
        assert said(engine, tone.sound(words)) == words


@pytest.mark.parametrize("floor", [1, 2, 5, 30])
async def test_any_floor_does(begin: Begin, tones: Path, floor: int) -> None:
    engine = await begin(tones, window_floor_s=floor)
    assert engine.abilities.floor_s == floor
    assert said(engine, tone.sound(["gold"])) == ["gold"]
    assert said(engine, tone.sound(["red", "two"])) == ["red", "two"], "a window without room behind the last word"


async def test_a_beam_says_the_same(begin: Begin, tones: Path) -> None:
    engine = await begin(tones, beam=5, temperatures=())
    wanted = sentences(5, seed=11)
    windows = [window(engine, tone.sound(words), final=n != 2) for n, words in enumerate(wanted)]
    assert [texts(answer) for answer in heard(engine, *windows)] == wanted


@pytest.mark.parametrize("late_s", [0.02, 0.1, 0.2])
async def test_a_cut_beginning_does_no_harm(begin: Begin, tones: Path, late_s: float) -> None:
    engine = await begin(tones)
    words = ["three", "white", "seven"]
    audio = tone.sound(words)[round(late_s * tone.RATE_HZ) :]
    assert said(engine, np.concatenate([audio, np.zeros(8_000, np.int16)])) == words


@pytest.mark.parametrize("lead_s", [0.05, 0.16, 0.3, 0.4, 1.3])
async def test_quiet_before_the_first_word_does_no_harm(begin: Begin, tones: Path, lead_s: float) -> None:
    engine = await begin(tones)
    words = ["five", "gold", "zero"]
    for final in (True, False):
        (answer,) = heard(engine, window(engine, tone.sound(words, lead_s=lead_s), final=final))
        assert texts(answer) == words
        starts = [word.start / tone.RATE_HZ for word in answer.words]
        assert starts == pytest.approx([lead_s + n * tone.SLOT_S for n in range(3)], abs=0.06)


async def test_windows_of_a_growing_stream_agree(begin: Begin, tones: Path) -> None:
    engine = await begin(tones)
    words = sentences(1, longest=12, seed=3)[0] + ["one", "two", "three"]
    audio = tone.sound(words)
    attention = engine.attend(language="en")
    for slot in range(len(words)):
        attention.take(audio[slot * SLOT : (slot + 1) * SLOT].tobytes(), slot * SLOT)
        asked = Window(attention=attention, start=0, stop=(slot + 1) * SLOT, final=False)
        assert texts(heard(engine, asked)[0]) == words[: slot + 1]


async def test_windows_count_from_their_own_start(begin: Begin, tones: Path) -> None:
    engine = await begin(tones)
    words = ["one", "two", "three", "four", "five", "six"]
    attention = engine.attend(language="en")
    attention.take(tone.sound(words).tobytes(), 777_600)
    start = 777_600 + 2 * SLOT
    (answer,) = heard(engine, Window(attention=attention, start=start, stop=start + 3 * SLOT, final=True))
    assert [(word.text, word.start) for word in answer.words] == [("three", 0), ("four", SLOT), ("five", 2 * SLOT)]


async def test_partials_may_be_cheaper_and_say_that_they_guess(begin: Begin, tones: Path) -> None:
    engine = await begin(tones, partial_words="estimated")
    words = ["one", "two", "seven", "black"]
    (answer,) = heard(engine, window(engine, tone.sound(words), final=False))
    assert texts(answer) == words
    assert all(word.estimated for word in answer.words)
    bounds = [place for word in answer.words for place in (word.start, word.stop)]
    assert bounds == sorted(bounds)
    assert bounds[-1] <= 4 * SLOT


async def test_the_unchanged_transcribe_says_the_same(begin: Begin, tones: Path) -> None:
    from faster_whisper import WhisperModel

    engine = await begin(tones)
    whisper = WhisperModel(str(tones), device="cpu", compute_type="int8", cpu_threads=1)
    for words in sentences(4, seed=13):
        audio = tone.sound(words)
        segments, _ = whisper.transcribe(
            audio.astype(np.float32) / 32_768, language="en", beam_size=1, without_timestamps=True
        )
        assert said(engine, audio) == "".join(segment.text for segment in segments).split()


async def test_true_size_says_the_same(begin: Begin, tmp_path: Path) -> None:
    engine = await begin(tone.make(tmp_path / "tiny", size=tone.TINY, quantization="int8"))
    wanted = sentences(4, longest=4, seed=17)
    windows = [window(engine, tone.sound(words)) for words in wanted]
    assert [texts(answer) for answer in heard(engine, *windows)] == wanted
