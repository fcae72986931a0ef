"""Positions do not drift, splits do not matter, and the sound stays what it was."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsrv._native.ring import RingBuffer
from streamsrv.audio.formats import AudioFormat
from streamsrv.audio.resample import WITHHELD, Resampler
from streamsrv.commands import Options

CAPACITY = 1_000_000


def resampler(rate: int, tracks: int = 1) -> tuple[Resampler, tuple[RingBuffer, ...]]:
    layout = AudioFormat.of(Options(sample_rate=rate, channels=tracks, multichannel=True))
    rings = tuple(RingBuffer(CAPACITY) for _ in range(tracks))
    return Resampler(layout, rings), rings


def held(ring: RingBuffer, begin: int | None = None) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    return np.frombuffer(ring.read(ring.start if begin is None else begin, ring.end), np.int16)


def click(rate: int, seconds: float, at_s: float) -> bytes:
    """Silence with a soft click (a 2 ms bell) whose middle lies at ``at_s``."""
    t = np.arange(round(rate * seconds)) / rate
    return (0.5 * np.exp(-(((t - at_s) / 5e-4) ** 2))).astype(np.float32).tobytes()


@pytest.mark.parametrize("rate", [44_100, 8_000])
def test_an_hour_does_not_drift_by_a_sample(rate: int) -> None:
    stream, (ring,) = resampler(rate)
    clicked, quiet = click(rate, 1.0, 0.5), bytes(4 * rate)
    for second in range(3_600):
        stream.push(clicked if second % 599 == 0 else quiet)
        if second % 599 == 1 or second == 599 * 6 + 1:
            middle = (second - 1) * 16_000 + 8_000
            heard = held(ring, middle - 200)[:400]
            assert abs(int(heard.argmax()) - 200) <= 1
        ring.release(ring.end - 40_000)
    stream.push(b"", last=True)
    assert ring.end == 3_600 * 16_000


@pytest.mark.parametrize(
    "rate", [8_000, 11_025, 12_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000, 16_025]
)
def test_every_rate_has_the_right_length_and_place(rate: int) -> None:
    stream, (ring,) = resampler(rate)
    stream.push(click(rate, 2.0, 1.0))
    assert 0 <= 32_000 - ring.end <= WITHHELD
    stream.push(b"", last=True)
    assert abs(ring.end - 32_000) <= 1
    assert abs(int(held(ring).argmax()) - 16_000) <= 1


@settings(max_examples=25)
@given(
    st.sampled_from([8_000, 22_050, 44_100, 48_000]),
    st.sampled_from([1, 2]),
    st.lists(st.integers(0, 1 << 30), max_size=12),
)
def test_any_split_gives_the_same_samples(rate: int, tracks: int, cuts: list[int]) -> None:
    sound = np.random.default_rng(rate).uniform(-1, 1, (rate // 2, tracks)).astype(np.float32)
    whole, rings = resampler(rate, tracks)
    whole.push(sound.tobytes())
    whole.push(b"", last=True)
    pieces, again = resampler(rate, tracks)
    places = [0, *sorted(cut % (len(sound) + 1) for cut in cuts), len(sound)]
    for begin, stop in itertools.pairwise(places):
        pieces.push(sound[begin:stop].tobytes())
    pieces.push(b"", last=True)
    assert [held(ring).tobytes() for ring in rings] == [held(ring).tobytes() for ring in again]


def test_a_tone_comes_through_60_db_clean() -> None:
    rate, seconds = 48_000, 2
    stream, (ring,) = resampler(rate)
    stream.push((0.5 * np.sin(2 * np.pi * 1_000 * np.arange(rate * seconds) / rate)).astype(np.float32).tobytes())
    stream.push(b"", last=True)
    want = 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(16_000 * seconds) / 16_000)
    error = (held(ring) / 32_768 - want)[800:-800]
    assert 10 * np.log10(np.mean(want**2) / np.mean(error**2)) > 60


def test_what_16_khz_cannot_hold_does_not_fold_back() -> None:
    rate = 48_000
    stream, (ring,) = resampler(rate)
    stream.push((0.5 * np.sin(2 * np.pi * 10_000 * np.arange(rate) / rate)).astype(np.float32).tobytes())
    assert np.abs(held(ring)[800:].astype(int)).max() <= 16
