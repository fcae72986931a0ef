"""Features by position, against Whisper's own extractor over the whole stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from streamsrv.audio.mel import HOP, Floats, MelTrack

HUMAN = sorted((Path(__file__).parents[1] / "models/digits/samples").glob("*.flac"))[:3]
extractor = pytest.importorskip("faster_whisper.feature_extractor")


def human() -> bytes:
    """Some twelve seconds of people."""
    return b"".join(sf.read(path, dtype="int16")[0].tobytes() for path in HUMAN)


def pieces(audio: bytes, seed: int) -> list[tuple[int, bytes]]:
    """Random pieces of whole samples, each with its position."""
    chance, at, found = np.random.default_rng(seed), 0, []
    while at < len(audio):
        size = 2 * int(chance.integers(1, 3_000))
        found.append((at // 2, audio[at : at + size]))
        at += size
    return found


def window(track: MelTrack, start: int, stop: int) -> Floats:
    out = np.empty((track.bands, track.frames(start, stop)), np.float32)
    track.fill(out, start, stop)
    return out


@pytest.mark.parametrize("bands", [80, 128])
def test_each_hop_computed_once_is_what_the_extractor_computes_over_the_whole_stream(bands: int) -> None:
    whisper, audio = extractor.FeatureExtractor(feature_size=bands), human()
    track = MelTrack(whisper.mel_filters)
    for position, piece in pieces(audio, seed=bands):
        track.take(piece, position)
    whole = whisper(np.frombuffer(audio, np.int16).astype(np.float32) / 32_768)
    ours = window(track, 0, track.end)
    assert np.abs(ours - whole[:, : ours.shape[1]]).max() < 1e-3, "also the first and the last ones"


def test_windows_anywhere_are_cut_from_the_same_hops() -> None:
    track, audio = MelTrack(extractor.FeatureExtractor().mel_filters), human()
    track.take(audio, 0)
    whole = window(track, 0, track.end)
    part = window(track, 16_000, 48_000)
    assert part.shape == (80, 200)
    # The clamp is the window's own, so only what lies above both is the same.
    above = part > max(part.min(), whole.min())
    assert np.allclose(part[above], whole[:, 100:300][above])
    assert track.frames(16_000 - 159, 48_000) == 200
    assert track.frames(16_001, 48_000) == 199


def test_positions_are_the_streams_own_after_a_gap_and_in_the_middle() -> None:
    audio = human()
    track, other = (MelTrack(extractor.FeatureExtractor().mel_filters) for _ in range(2))
    track.take(audio[:32_000], 0)
    track.take(audio, 1_000_003)
    other.take(audio, 0)
    assert (track.start, track.end) == (1_000_003, 1_000_003 + len(audio) // 2)
    assert np.array_equal(window(track, 1_000_003, 1_016_003), window(other, 0, 16_000))
    with pytest.raises(ValueError):
        window(track, 0, 16_000)


def test_what_was_taken_is_passed_over() -> None:
    audio = human()
    track, other = (MelTrack(extractor.FeatureExtractor().mel_filters) for _ in range(2))
    track.take(audio[:40_000], 0)
    track.take(audio[20_000:64_000], 10_000)
    track.take(audio[:100], 0)
    other.take(audio[:64_000], 0)
    assert track.end == 32_000
    assert np.array_equal(window(track, 0, 32_000), window(other, 0, 32_000))


def test_what_is_forgotten_is_gone_and_its_memory_too() -> None:
    track = MelTrack(extractor.FeatureExtractor().mel_filters)
    track.take(bytes(2 * 16_000 * 40), 0)
    before = track.allocated
    track.forget(16_000 * 38)
    assert track.allocated <= before / 8
    assert track.start == 16_000 * 38
    with pytest.raises(ValueError):
        window(track, 0, HOP)


def test_an_hour_that_nobody_forgets_stays_bounded() -> None:
    track = MelTrack(extractor.FeatureExtractor().mel_filters)
    second = bytes(32_000)
    for n in range(200):
        track.take(second, n * 16_000)
    assert track.end - track.start <= 76 * 16_000
    assert track.allocated <= 1.3 * 75 * 100 * 160
