"""What counts as speech: a person from near or far, not a fan, not the mains; and nothing keeps a segment open."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr  # type: ignore[import-untyped]

from streamsrv.commands import Options
from tests.audio.listening import Listening
from tests.audio.sounds import Floats, at_level, band, hiss, hum, person, silence, square, to_int16
from tests.support.speech import voice

SPACE = silence(1)


def heard(sound: Floats, options: Options | None = None) -> Listening:
    return Listening(options).hear(to_int16(sound).tobytes(), 640)


def covered(listening: Listening, sound: Floats) -> float:
    """Share of the person's loud frames that lie in segments."""
    frames = sound[: len(sound) // 320 * 320].reshape(-1, 320).var(axis=1)
    loud = frames > np.percentile(frames, 95) / 300
    inside = np.zeros(len(loud), bool)
    for start, stop in listening.segments():
        inside[start // 320 : -(-stop // 320)] = True
    return float((loud & inside).sum() / loud.sum())


def inside_words(speech: Floats) -> list[int]:
    """Samples, 60 ms apart, that 240 ms of nothing but speech follow."""
    frames = speech[: len(speech) // 320 * 320].reshape(-1, 320).var(axis=1)
    loud = frames > np.percentile(frames, 95) / 30
    return [at * 320 for at in range(0, len(loud) - 12, 3) if loud[at : at + 12].all()]


@pytest.mark.parametrize("dbfs", [-12, -26, -40, -50, -60, -66])
def test_a_person_is_heard_from_near_and_far(dbfs: float) -> None:
    sound = np.concatenate([SPACE, at_level(person(), dbfs), SPACE])
    listening = heard(sound).finish()
    assert covered(listening, sound) > 0.97
    assert 2 <= len(listening.segments()) <= 8


@pytest.mark.parametrize("dbfs", [-20, -26, -40, -50, -60])
def test_a_stream_that_begins_in_the_middle_of_a_word_loses_none_of_it(dbfs: float) -> None:
    speech = at_level(person(), dbfs)
    places = inside_words(speech)
    assert len(places) > 15
    for place in places:
        listening = heard(np.concatenate([speech[place : place + 48_000], SPACE])).finish()
        assert listening.segments()[0][0] == 0, place


@pytest.mark.parametrize("quiet_s", [0.4, 0.5, 0.7, 0.9])
def test_a_silence_that_is_heard_again_stays_silence(quiet_s: float) -> None:
    loud = voice(2.0)
    listening = Listening().hear(bytes(round(quiet_s * 16_000) * 2) + loud + bytes(32_000), 640).finish()
    assert listening.segments()[0][0] >= (quiet_s - 0.3) * 16_000 - 320


@pytest.mark.parametrize("dbfs", [-20, -30, -40])
def test_a_person_is_heard_over_hiss(dbfs: float) -> None:
    speech = np.concatenate([SPACE, at_level(person(), dbfs), SPACE])
    listening = heard(speech + at_level(hiss(len(speech) / 16_000), dbfs - 15)).finish()
    assert covered(listening, speech) > 0.9


@pytest.mark.parametrize("dbfs", [-70, -60, -50, -40, -30, -20, -10])
@pytest.mark.parametrize("noise", [hiss, hum, lambda s: hum(s, 60.0)], ids=["hiss", "hum 50", "hum 60"])
def test_steady_noise_opens_at_most_one_segment_and_closes_it(noise: object, dbfs: float) -> None:
    assert callable(noise)
    listening = heard(at_level(noise(20), dbfs))
    assert len(listening.segments()) <= 1
    assert all(stop - start < 2 * 16_000 for start, stop in listening.segments())
    assert not listening.front.cut(0.0)


@pytest.mark.parametrize("dbfs", [-40, -20])
def test_music_is_cut_at_the_longest_and_ends_when_it_stops(dbfs: float) -> None:
    listening = heard(np.concatenate([at_level(band(45), dbfs), silence(1)]))
    assert all(stop - start <= 20 * 16_000 + 320 for start, stop in listening.segments())
    assert listening.segments()[-1][1] <= 46 * 16_000
    assert not listening.front.cut(0.0)


def test_a_person_is_heard_when_the_music_stops() -> None:
    sound = np.concatenate([at_level(band(10), -30), silence(1), at_level(person(), -30), SPACE])
    listening = heard(sound).finish()
    speech = np.concatenate([silence(11), at_level(person(), -30), SPACE])
    assert covered(listening, speech) > 0.97


def test_an_offset_changes_little() -> None:
    sound = np.concatenate([SPACE, at_level(person(), -30), SPACE])
    plain, shifted = heard(sound).finish(), heard(sound + 0.3).finish()
    assert covered(shifted, sound) > 0.97
    assert abs(len(shifted.segments()) - len(plain.segments())) <= 2


@pytest.mark.parametrize(
    "before", [square(3), square(3) * 0.9 + 0.1, at_level(hiss(3), -6)], ids=["square", "dc", "roar"]
)
def test_after_a_roar_it_hears_again_within_a_second(before: Floats) -> None:
    lead = len(before) + 8_000
    sound = np.concatenate([before, silence(0.5), at_level(person(), -30), SPACE])
    listening = heard(sound).finish()
    speech = np.concatenate([np.zeros(lead), at_level(person(), -30), SPACE])
    assert covered(listening, speech) > 0.97
    assert any(start >= lead - 8_000 for start, _ in listening.segments())


def extra() -> list[Path]:
    """More recordings, where the machine has some: ``STREAMSRV_EXTRA_AUDIO`` or a folder beside the checkout."""
    folder = Path(os.environ.get("STREAMSRV_EXTRA_AUDIO", Path(__file__).parents[3] / "shared" / "audio"))
    return sorted(path for path in folder.glob("*") if path.suffix in {".wav", ".flac", ".ogg"})


@pytest.mark.parametrize("path", extra(), ids=lambda path: path.stem)
def test_other_people_are_heard_too(path: Path) -> None:
    sound, rate = soundfile.read(path, dtype="float64", always_2d=True)
    mono = soxr.resample(sound.mean(axis=1), rate, 16_000) if rate != 16_000 else sound.mean(axis=1)
    sound = np.concatenate([SPACE, mono, SPACE])
    listening = heard(sound).finish()
    assert listening.segments()
    assert sum(stop - start for start, stop in listening.segments()) > 0.5 * len(mono)
