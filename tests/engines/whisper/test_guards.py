"""The guards by themselves: what counts as a loop, as half a word, as a sound unlike speech."""

from __future__ import annotations

import numpy as np
import pytest

from streamsrv.audio.mel import MelTrack
from streamsrv.engines._whisper import guards
from streamsrv.engines._whisper.guards import Sound, compression, credible, unlooped
from streamsrv.facts import Word
from tests.engines.whisper import sounds
from tests.engines.whisper.asking import Samples, recordings
from tests.engines.whisper.conftest import DIGITS
from tests.models import tone


def listened(audio: Samples, bands: int = 80) -> Sound:
    from faster_whisper.feature_extractor import FeatureExtractor

    track = MelTrack(FeatureExtractor(feature_size=bands).mel_filters)
    track.take(audio.tobytes(), 0)
    spoken = track.frames(0, len(audio))
    features = np.empty((bands, spoken + 10), np.float32)
    return guards.listen(features, spoken, track.fill(features, 0, len(audio)))


def sound(*, surely: float = 0.0, loud: str = ".##.##.") -> Sound:
    return Sound(False, surely, np.array([mark == "#" for mark in loud for _ in range(10)]))


def word(text: str, confidence: float = 1.0, *, start: int = 0, stop: int = 4_000) -> Word:
    return Word(text=text, start=start, stop=stop, confidence=confidence)


@pytest.mark.parametrize(
    ("name", "surely"), [("hiss", 0.95), ("room", 0.95), ("hum", 0.95), ("music", 0.99), ("keys", 0.95)]
)
def test_sounds_unlike_speech_need_sure_words(name: str, surely: float) -> None:
    for seconds in (1.5, 5.0):
        assert listened(sounds.samples(sounds.NOTHING[name](seconds, 3))).surely >= surely


def test_people_and_pure_tones_need_none() -> None:
    for person in recordings(DIGITS):
        assert listened(person.audio).surely == 0
    assert listened(tone.sound(["one", "gold", "red", "five"])).surely == 0


@pytest.mark.parametrize("bands", [80, 128])
def test_people_need_none_with_any_model(bands: int) -> None:
    for person in recordings(DIGITS):
        assert listened(person.audio, bands).surely == 0
    for name, make in sounds.NOTHING.items():
        if name != "silence":
            assert listened(sounds.samples(make(5.0, 3)), bands).surely > 0


def test_a_word_in_a_long_quiet_window_is_looked_at_whole() -> None:
    """Few of its 30 s are loud; all of them count, wherever they lie."""
    person = recordings(DIGITS)[0].audio
    first = int(np.flatnonzero(np.abs(person) > 2_000)[0])
    word = person[first : first + 9_600]
    for offset in range(0, 30):
        quiet = np.zeros(29 * 16_000, np.int16)
        place = 160_000 + 160 * offset
        quiet[place : place + len(word)] = word
        assert listened(quiet).surely == listened(quiet[place - 8_000 : place + 16_000]).surely == 0


def test_too_little_to_judge_is_not_judged() -> None:
    assert listened(recordings(DIGITS)[0].audio[6_000:10_000]).surely == 0


def test_digital_silence_is_silent() -> None:
    assert listened(np.zeros(16_000, np.int16)).silent
    assert not listened(np.full(16_000, 2, np.int16) * np.tile(np.array([1, -1], np.int16), 8_000)).silent


def test_where_it_is_loud() -> None:
    start, stop = listened(tone.sound(["one", "two"], lead_s=0.5)).speech
    assert start == pytest.approx(8_000, abs=400)
    assert stop == pytest.approx(8_000 + 8_000 + 6_720, abs=400)


@pytest.mark.parametrize(
    ("answer", "kept", "left"),
    [
        ([1, 2, 3], 0, [1, 2, 3]),
        ([7, 7, 7, 7], 0, [7]),
        ([5, 7, 7, 7], 0, [5, 7]),
        ([5, 7, 7], 0, [5, 7, 7]),
        ([9, 1, 2, 1, 2, 1, 2], 0, [9, 1, 2]),
        ([1, 2, 3, 1, 2, 3], 0, [1, 2, 3, 1, 2, 3]),
        ([7, 7, 7, 7, 7, 7], 3, [7, 7, 7, 7]),
        ([], 0, []),
    ],
)
def test_a_loop_at_the_end_is_said_once(answer: list[int], kept: int, left: list[int]) -> None:
    assert unlooped(answer, kept) == left


def test_unsure_words_fall_where_the_sound_is_unlike_speech() -> None:
    words = [word("a", 0.97), word("b", 0.9)]
    assert credible(words, sound(surely=0.0), 0) == words
    assert credible(words, sound(surely=0.93), 0) == words
    assert credible(words, sound(surely=0.95), 0) == []
    assert credible(words, sound(surely=0.95), 1) == words[:1], "promised words stay and do not help the others"


def test_half_words_at_the_edges_need_to_be_likely() -> None:
    words = [word("a", 0.4), word("b", 0.4), word("c", 0.4)]
    assert credible(words, sound(loud=".##."), 0) == words
    assert credible(words, sound(loud="###."), 0) == words[1:]
    assert credible(words, sound(loud=".###"), 0) == words[:2]
    assert credible(words, sound(loud="###."), 1) == words, "the first one is promised"
    assert credible(words[:1], sound(loud="####"), 0) == []


def test_a_word_that_takes_no_time_was_not_said_again() -> None:
    words = [word("a"), word("a", stop=4_300, start=4_000), word("a", start=4_300, stop=9_000)]
    assert [each.stop for each in credible(words, sound(), 0)] == [4_000, 9_000]


def test_compression() -> None:
    assert compression("") == 0
    assert compression("the quick brown fox") < 1.5
    assert compression("again and " * 20) > 5
