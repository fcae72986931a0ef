"""A look at the beginning of a stream: what is wrong is found, what is right is never suspected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from streamsrv.audio.mistakes import BLOCK_SAMPLES, MOST_BLOCKS, Look
from streamsrv.commands import Options
from streamsrv.errors import UnsupportedMedia
from tests.support.speech import silence, voice

SPEECH = Path(__file__).parents[1] / "data" / "speech"


def look(audio: bytes, *, size: int = 640, options: Options | None = None) -> list[str]:
    """Codes of what is told about this audio, sent in messages of this size."""
    eye, told = Look(), []
    for at in range(0, len(audio), size):
        if eye.done:
            break
        told += [code for code, _ in eye.at(audio[at : at + size], options or Options())]
    return told


def recording(name: str) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    samples: np.ndarray[tuple[int], np.dtype[np.int16]] = soundfile.read(SPEECH / name, dtype="int16")[0]
    return samples


@pytest.mark.parametrize("path", sorted(SPEECH.glob("*.flac")), ids=lambda path: path.stem)
@pytest.mark.parametrize("size", [640, 641, 100_000])
def test_people_are_not_suspected(path: Path, size: int) -> None:
    samples = recording(path.name)
    assert look(samples.tobytes(), size=size) == []
    assert look((samples // 8).tobytes(), size=size) == []
    loud = np.clip(samples.astype(np.int32) * 3, -32_768, 32_767).astype("<i2")
    assert look(loud.tobytes(), size=size) == []


@pytest.mark.parametrize("path", sorted(SPEECH.glob("*.flac")), ids=lambda path: path.stem)
def test_people_in_the_wrong_form_are(path: Path) -> None:
    samples = recording(path.name)
    assert look(np.repeat(samples, 2).tobytes()) == ["suspect_audio"]
    assert look((samples.astype(np.float32) / 32_768).astype("<f4").tobytes()) == ["suspect_audio"]
    assert look(samples.tobytes()[1:]) == ["suspect_audio"]
    one_sided = np.stack([samples, np.zeros_like(samples)], axis=1)
    assert look(one_sided.tobytes()) == ["suspect_audio"]


def test_other_encodings_are_not_judged() -> None:
    noise = np.random.default_rng(2).integers(-32_768, 32_767, 40_000).astype("<i2").tobytes()
    assert look(noise) == ["suspect_audio"]
    assert look(noise, options=Options(encoding="mulaw")) == []
    assert look(noise, options=Options(channels=2)) == []


def test_it_stops_looking() -> None:
    eye = Look()
    for _ in range(3):
        assert not eye.done
        eye.at(voice(0.25), Options())
    assert eye.done, "three loud blocks that look right are enough"
    eye = Look()
    for _ in range(MOST_BLOCKS):
        assert not eye.done
        eye.at(bytes(2 * BLOCK_SAMPLES), Options())
    assert eye.done, "who is silent for two minutes is left alone"


@given(st.integers(1, 60), st.binary(min_size=44, max_size=200))
def test_any_bytes_in_any_pieces_are_borne(size: int, audio: bytes) -> None:
    try:
        told = look(audio + silence(0.6), size=size)
    except UnsupportedMedia:
        return
    assert set(told) <= {"wav_header", "suspect_audio"}


@given(st.integers(1, 50))
def test_a_file_is_known_in_any_pieces(size: int) -> None:
    with pytest.raises(UnsupportedMedia, match="Ogg"):
        look(b"OggS" + bytes(100), size=size)
