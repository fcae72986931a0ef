"""Models of OpenAI's true sizes load and are heard; their weights are random, so nothing is said of the words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engines.whisper import sounds
from tests.engines.whisper.asking import heard, window
from tests.engines.whisper.conftest import Begin
from tests.models import sized


async def hears_one_window(begin: Begin, folder: Path, *, bands: int) -> None:
    assert json.loads((folder / "preprocessor_config.json").read_text())["feature_size"] == bands
    engine = await begin(folder, compute_type="int8", temperatures=())
    assert engine.model.filters.shape[0] == bands
    audio = sounds.samples(sounds.music(1.0, 1))
    (answer,) = heard(engine, window(engine, audio, language="en"))
    places = [place for word in answer.words for place in (word.start, word.stop)]
    assert [0, *places, len(audio)] == sorted([0, *places, len(audio)]), "any words, but in order and in the window"


@pytest.mark.slow
async def test_tiny_of_true_size(begin: Begin, tmp_path: Path) -> None:
    folder = sized.make(tmp_path / "tiny", "tiny.en")
    # 39 million parameters of one byte, and the scales.
    assert (folder / "model.bin").stat().st_size == pytest.approx(39e6, rel=0.1)
    await hears_one_window(begin, folder, bands=80)


@pytest.mark.slow
async def test_turbo_in_narrow(begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turbo = sized.SIZES["turbo"]
    assert turbo == (1_280, 32, 4, 20, 128, 51_866)
    # All of its weights would take half a minute; its bands, its vocabulary and its decoder's depth stay.
    monkeypatch.setitem(sized.SIZES, "turbo", turbo._replace(width=128, encoders=1, heads=2))
    await hears_one_window(begin, sized.make(tmp_path / "turbo", "turbo"), bands=turbo.bands)
