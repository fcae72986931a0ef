from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsrv.audio.formats import GRID, AudioFormat
from streamsrv.commands import Options
from streamsrv.errors import BadRequest

RATES = st.integers(320, 7_680).map(lambda n: 25 * n)


def test_a_frame_is_one_sample_of_every_channel() -> None:
    layout = AudioFormat.of(Options(encoding="pcm_s24le", sample_rate=48_000, channels=2, multichannel=True))
    assert (layout.frame_bytes, layout.bytes_per_second, layout.tracks, layout.resampled) == (6, 288_000, 2, True)
    mixed = AudioFormat.of(Options(encoding="mulaw", sample_rate=8_000, channels=2))
    assert (mixed.frame_bytes, mixed.bytes_per_second, mixed.tracks) == (2, 16_000, 1)
    assert not AudioFormat.of(Options()).resampled


@given(RATES, st.integers(0, 10**7))
def test_client_samples_are_exact_at_every_120_ms(rate: int, step: int) -> None:
    layout = AudioFormat.of(Options(sample_rate=rate))
    samples = layout.samples(step * GRID)
    assert samples * 16_000 == step * GRID * rate
    assert layout.position(samples) == step * GRID


@given(RATES, st.integers(0, 10**6), st.integers(0, 10**6))
def test_frames_within_never_give_too_much(rate: int, had: int, room: int) -> None:
    layout = AudioFormat.of(Options(sample_rate=rate))
    frames = layout.frames_within(room)
    assert layout.position(frames) <= room < layout.position(frames + 2 + rate // 16_000) + 1


@pytest.mark.parametrize("rate", [0, -16_000, 7_999, 8_001, 11_026, 192_025, 10**9])
def test_rates_out_of_range_are_refused_with_a_remedy(rate: int) -> None:
    with pytest.raises(BadRequest) as caught:
        AudioFormat.of(Options(sample_rate=rate))
    assert "8000 to 192000" in caught.value.hint


@pytest.mark.parametrize("channels", [0, -1, 9, 1_024])
def test_channels_out_of_range_are_refused(channels: int) -> None:
    with pytest.raises(BadRequest):
        AudioFormat.of(Options(channels=channels))


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(BadRequest) as caught:
        AudioFormat.of(Options(encoding="opus"))  # type: ignore[arg-type]
    assert "pcm_s16le" in caught.value.hint
