"""Log-mel hops against the definition, whatever the pieces the audio comes in."""

from __future__ import annotations

import math
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsrv._native.mel import LogMel
from tests import oracle

BANDS = 5
CLOSE = 3e-3
"""A kept value is exact to 0.00012; the rest is float32 where bands lie many decades under the loudest."""


def filters(bands: int = BANDS) -> list[list[float]]:
    """Triangles over the bins, the last one empty."""
    rows = [[max(0.0, 1 - abs(k - 20 - 30 * n) / 18) for k in range(201)] for n in range(bands - 1)]
    return [*rows, [0.0] * 201]


PACKED = array("f", (value for row in filters() for value in row)).tobytes()


def mel(most: int = 1_000) -> LogMel:
    return LogMel(PACKED, BANDS, most)


def noise(count: int, seed: int = 1) -> list[int]:
    """Reproducible noise without a library: a linear congruence."""
    values, state = [], seed
    for _ in range(count):
        state = (1_103_515_245 * state + 12_345) % 2**31
        values.append((state >> 12) % 16_001 - 8_000)
    return values


def packed(samples: list[int]) -> bytes:
    return array("h", samples).tobytes()


def window(track: LogMel, first: int, stop: int, frames: int) -> tuple[list[list[float]], float]:
    out = array("f", [math.nan]) * (track.mels * frames)
    peak = track.fill(out, first, stop, frames)
    return [out[band * frames : (band + 1) * frames].tolist() for band in range(track.mels)], peak


def close(left: list[list[float]], right: list[list[float]]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(math.isclose(a, b, abs_tol=CLOSE / 4) for x, y in pairs for a, b in zip(x, y, strict=True))


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 900), st.lists(st.integers(1, 400), min_size=1, max_size=8), st.integers(0, 9))
def test_a_window_is_what_the_oracle_says(count: int, sizes: list[int], silence: int) -> None:
    samples, track, at = noise(count), mel(), 0
    while at < count:
        size = sizes[at % len(sizes)]
        track.push(packed(samples[at : at + size]))
        at += size
    stop = count // 160 + 1
    wanted = oracle.mel_window([oracle.log_mel(samples, hop, filters()) for hop in range(stop)], stop + silence)
    assert close(window(track, 0, stop, stop + silence)[0], wanted)


def test_hops_are_computed_once_and_stay_when_audio_follows() -> None:
    samples, track = noise(1_200), mel()
    track.push(packed(samples[:600]))
    early, _ = window(track, 1, 3, 2)
    track.push(packed(samples[600:]))
    assert window(track, 1, 3, 2)[0] == early


def test_the_edge_sees_zeros_until_audio_follows() -> None:
    samples, track = noise(1_200), mel()
    track.push(packed(samples[:480]))
    edge, _ = window(track, 3, 4, 1)
    assert close(edge, oracle.mel_window([oracle.log_mel(samples[:480], 3, filters())], 1))
    track.push(packed(samples[480:]))
    whole, _ = window(track, 3, 4, 1)
    assert close(whole, oracle.mel_window([oracle.log_mel(samples, 3, filters())], 1))
    assert not close(whole, edge)


def test_the_clamp_belongs_to_the_window() -> None:
    quiet, loud = [round(3 * math.sin(n * 0.5)) for n in range(1_600)], noise(1_600)
    track = mel()
    track.push(packed(quiet + loud))
    alone, _ = window(track, 1, 8, 7)
    beside, _ = window(track, 1, 18, 17)
    assert min(map(min, alone)) < min(map(min, beside)) < max(map(max, alone)) < max(map(max, beside))


def test_digital_silence_is_minus_ten() -> None:
    track = mel()
    track.push(bytes(3_200))
    rows, peak = window(track, 0, 5, 7)
    assert peak == pytest.approx(-10, abs=CLOSE)
    assert {round(value, 3) for row in rows for value in row} == {-1.5}


def test_full_scale_does_not_overflow() -> None:
    track = LogMel(array("f", [100.0] * 201).tobytes(), 1, 10)
    track.push(packed([32_767, -32_768] * 800))
    _, peak = window(track, 1, 5, 4)
    assert 4.9 < peak < 5.1, "the largest a kept value can be"


def test_the_oldest_hops_go_when_it_is_full() -> None:
    track = mel(most=20)
    samples = noise(160 * 60)
    track.push(packed(samples))
    assert (track.start, track.end) == (39, 59)
    with pytest.raises(ValueError, match="are not among 39"):
        window(track, 38, 40, 2)
    rows, _ = window(track, 39, 41, 2)
    assert close(rows, oracle.mel_window([oracle.log_mel(samples, hop, filters()) for hop in (39, 40)], 2))


def test_forgetting_gives_memory_back_and_keeps_the_rest() -> None:
    track = mel(most=5_000)
    samples = noise(160 * 1_000)
    track.push(packed(samples))
    full, kept = track.allocated, window(track, 950, 960, 10)
    track.forget(950)
    assert track.start == 950
    assert track.allocated < full / 4
    assert window(track, 950, 960, 10) == kept
    track.push(packed(noise(16_000, seed=2)))
    assert window(track, 950, 960, 10) == kept
    track.forget(10**12)
    assert track.start == track.end


@pytest.mark.parametrize(
    ("first", "stop", "frames"), [(-1, 3, 9), (3, 3, 9), (4, 3, 9), (0, 12, 99), (0, 5, 4), (5, 9_999, 10_000)]
)
def test_a_window_that_is_not_there_is_refused(first: int, stop: int, frames: int) -> None:
    track = mel()
    track.push(packed(noise(1_600)))
    with pytest.raises(ValueError):
        window(track, first, stop, frames)


def test_what_it_is_given_is_checked() -> None:
    track = mel()
    with pytest.raises(ValueError, match="whole samples"):
        track.push(b"abc")
    assert track.samples == 0
    track.push(packed(noise(1_600)))
    with pytest.raises(ValueError, match="float32"):
        track.fill(array("f", [0.0] * 3), 0, 5, 5)
    with pytest.raises(BufferError):
        track.fill(bytes(4 * BANDS * 5), 0, 5, 5)
    track.push(b"")
    for wrong in (0, 257):
        with pytest.raises(ValueError):
            LogMel(PACKED, wrong, 10)
    with pytest.raises(ValueError):
        LogMel(PACKED, BANDS, 0)
    with pytest.raises(ValueError):
        LogMel(PACKED[:-4], BANDS, 10)
    with pytest.raises(TypeError):
        track.push("text")  # type: ignore[arg-type]


def test_it_says_what_it_holds() -> None:
    track = mel()
    track.push(packed(noise(1_600)))
    assert repr(track) == "<LogMel 5 bands, hops 0..9 of at most 1000>"
    assert (track.mels, track.most, track.samples) == (5, 1_000, 1_600)
