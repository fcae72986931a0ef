"""The accuracy benchmark in small: it counts rightly, and runs on a recording."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from benchmarks import accuracy
from benchmarks.served import speech_file


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Three seconds of speech with its words beside it."""
    sound, rate = soundfile.read(speech_file(), dtype="int16")
    soundfile.write(tmp_path / "short.wav", sound[: 3 * rate], rate)
    (tmp_path / "short.txt").write_text("And so, my fellow Americans:")
    (tmp_path / "unwritten.wav").write_bytes((tmp_path / "short.wav").read_bytes())
    return tmp_path


def test_words_are_compared_without_their_dress() -> None:
    assert accuracy.words_of('"Mr. O’Neil", he said -- 20_x') == ["mister", "o'neil", "he", "said", "20", "x"]


def test_stable_words_are_never_fewer() -> None:
    once, more, other = ["a"], ["a", "b"], ["x", "b"]
    assert accuracy._stable([once] * 7) == []
    assert accuracy._stable([once] * 8) == once
    assert accuracy._stable([once] * 4 + [more] * 8 + [other] * 9) == more


def test_a_recording_needs_its_words(recording: Path) -> None:
    (found,) = accuracy.recordings([recording])
    assert found.truth == ("and", "so", "my", "fellow", "americans")
    assert 1.0 < sum(map(len, found.segments)) / 32_000 < 3.2


@pytest.mark.slow
@pytest.mark.speech
def test_the_command(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert accuracy.main(["--audio", str(recording), "--seconds", "1", "--dry"]) == 0
    told = capsys.readouterr().out
    assert "library defaults" in told
    assert "guards held" in told
