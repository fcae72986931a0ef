"""The window benchmark in small: its texts are compared, and a wrong one makes it fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("faster_whisper", reason="the extra 'whisper' is not installed")

from benchmarks import report, window
from tests.models import tone


@pytest.mark.slow
def test_it_measures_and_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(window, "SPOKEN_S", 1.0)
    folder = tone.make(tmp_path / "small")
    assert window.main(["--model", str(folder), "--quick"]) == 0
    assert not (tmp_path / "results").exists(), "quick figures are not kept"


@pytest.mark.slow
def test_a_wrong_text_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    # What it costs is not the matter here.
    monkeypatch.setattr(window, "spent", lambda clock, jobs, rounds: dict.fromkeys(jobs, 1.0))
    monkeypatch.setattr(window, "voices", lambda made, count: [(tone.sound(["one"]), ["two"])] * 2)
    assert window.main(["--model", str(tone.make(tmp_path / "small"))]) == 1
    (kept,) = (tmp_path / "results").glob("window-small-*.json")
    assert json.loads(kept.read_text())["guard"] is False
