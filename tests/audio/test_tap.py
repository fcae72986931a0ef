"""The tap hears what the engine may hear: every sample once, at 16 000 Hz, also what is silence."""

from __future__ import annotations

import random

import numpy as np
import pytest

from streamsrv.audio.front import LEAD_IN, Front
from streamsrv.commands import Options
from streamsrv.facts import ChannelStart
from tests.support.speech import silence, voice


def tapped(options: Options, data: bytes, pieces: list[int], starts: tuple[ChannelStart, ...] = ()) -> list[bytes]:
    """What the tap hears of each channel when the bytes come in these pieces."""
    front = Front(options, starts=starts)
    heard = [b""] * options.tracks

    def tap(channel: int, samples: bytes) -> None:
        heard[channel] += samples
        assert len(heard[channel]) // 2 + front.resume_at <= front.position

    front.tap = tap
    at = 0
    for size in [*pieces, len(data)]:
        front.feed(data[at : at + size], 0.0)
        at = min(len(data), at + size)
        for channel in range(options.tracks):
            front.release(channel, front.position)
    front.finish(0.0)
    return heard


def pieces(seed: int) -> list[int]:
    chance = random.Random(seed)
    return [chance.choice([0, 1, 2, 333, 640, 16_000, 47_999]) for _ in range(60)]


@pytest.mark.parametrize("seed", range(5))
async def test_every_sample_once_however_it_is_split(seed: int) -> None:
    sound = silence(2.0) + voice(1.5) + silence(3.0) + voice(0.6)
    assert tapped(Options(), sound, pieces(seed)) == [sound]


@pytest.mark.parametrize("seed", range(3))
async def test_channels_apart(seed: int) -> None:
    left, right = voice(2.0), silence(1.0) + voice(1.0, seed=1)
    both = np.stack([np.frombuffer(one, "<i2") for one in (left, right)], axis=1).tobytes()
    assert tapped(Options(channels=2, multichannel=True), both, pieces(seed)) == [left, right]


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
async def test_other_rates_are_heard_as_the_engine_hears_them(rate: int) -> None:
    sound = voice(2.0, rate=rate)
    once = tapped(Options(sample_rate=rate), sound, [])
    assert abs(len(once[0]) // 2 - 32_000) <= 1
    assert tapped(Options(sample_rate=rate), sound, pieces(1)) == once


async def test_a_resumed_run_is_heard_from_where_it_begins() -> None:
    start = ChannelStart(restart=19_200, kept_to=20_000, next_segment=1)
    sound = voice(1.0)
    front = Front(Options(), starts=(start,))
    assert front.resume_at == 19_200 - LEAD_IN
    assert tapped(Options(), sound, [100, 5_000], (start,)) == [sound]


async def test_without_a_tap_nothing_is_told() -> None:
    assert Front(Options()).tap is None
