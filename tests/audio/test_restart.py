"""A run that begins where an earlier one may be resumed finds the same segments and tells only what was not kept."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsrv.audio.front import LEAD_IN, Front
from streamsrv.commands import Options
from streamsrv.facts import Advanced, ChannelStart, SpeechBegan, SpeechEnded
from tests.audio.listening import Listening, encode
from tests.audio.sounds import Floats, at_level, hiss, hum, person, silence, to_int16


@cache
def conversation() -> Floats:
    """48 s: near, far, noisy, hesitating; pauses of all lengths."""
    talk = [person()[a : a + n] for a, n in ((0, 40_000), (48_000, 24_000), (80_000, 16_000), (120_000, 56_000))]
    parts: list[Floats] = []
    for turn, pause in enumerate((0.4, 2.1, 0.7, 3.3, 1.0, 5.2, 0.9, 2.7)):
        parts += [silence(pause), at_level(talk[turn % 4], (-20, -45, -30, -60)[turn % 4])]
    sound = np.concatenate([*parts, silence(2)])
    return sound + at_level(hiss(len(sound) / 16_000), -72) + at_level(hum(len(sound) / 16_000), -64)


@cache
def first_run() -> Listening:
    return Listening().hear(to_int16(conversation()).tobytes(), 640).finish()


def offered(run: Listening) -> list[int]:
    """Restart points a run told."""
    return sorted({mark.restart for mark in run.marks if isinstance(mark, Advanced)})


@cache
def points() -> list[int]:
    return offered(first_run())


def resumed(restart: int, kept_to: int, *, piece: int = 640) -> Listening:
    again = Listening(starts=[ChannelStart(restart=restart, kept_to=kept_to)])
    again.hear(to_int16(conversation())[again.front.resume_at :].tobytes(), piece).finish()
    return again


def test_the_first_run_offers_many_points_and_none_inside_a_segment() -> None:
    assert len(points()) > 12
    assert not any(start < point < stop for point in points() for start, stop in first_run().segments())
    for mark in first_run().marks:
        if isinstance(mark, Advanced) and mark.restart:
            assert mark.position - mark.restart >= 4_800 + 6 * 320


@pytest.mark.parametrize("turn", range(10))
def test_a_resumed_run_tells_the_same_boundaries(turn: int) -> None:
    restart = points()[turn * len(points()) // 10]
    kept_to = max([stop for _, stop in first_run().segments() if stop <= restart], default=0)
    again = resumed(restart, kept_to)
    want = [mark for mark in first_run().boundaries if mark.position > restart]
    assert again.boundaries == want
    assert again.audio() == [first_run().front.read(0, start, stop) for start, stop in again.segments()]
    later = [mark.restart for mark in first_run().marks if isinstance(mark, Advanced) and mark.restart > restart]
    assert sorted({mark.restart for mark in again.marks if isinstance(mark, Advanced)} - {restart}) == sorted(
        set(later)
    )


@settings(max_examples=25)
@given(st.data())
def test_what_was_kept_is_not_told_again(data: st.DataObject) -> None:
    restart = data.draw(st.sampled_from(points()[:-1]))
    kept_to = data.draw(st.integers(restart, restart + 320_000))
    again = resumed(restart, kept_to, piece=data.draw(st.sampled_from([640, 6_001, 1 << 20])))
    want = [(max(s, kept_to), e) for s, e in first_run().segments() if s >= restart and e > kept_to]
    assert again.segments() == want
    for mark in again.boundaries:
        if isinstance(mark, SpeechEnded):
            assert kept_to <= mark.speech_stop <= mark.stop


def test_a_cut_by_length_exactly_where_it_was_kept() -> None:
    options = Options(longest_ms=4_000, hangover_ms=2_000)
    data = encode(np.concatenate([silence(1), person(), silence(3)]), options)
    whole = Listening(options).hear(data, 640).finish()
    assert len(whole.segments()) >= 3
    for kept_to in (whole.segments()[0][1], whole.segments()[1][1]):
        again = Listening(options, [ChannelStart(restart=0, kept_to=kept_to)]).hear(data, 640).finish()
        assert again.segments() == [(s, e) for s, e in whole.segments() if s >= kept_to]
        assert sum(isinstance(mark, SpeechBegan) for mark in again.boundaries) == 1


@pytest.mark.parametrize("ahead", [-6_400, -1, 0, 1, 640, 6_400, 20_000])
def test_cuts_around_what_was_kept_leave_no_hole_and_no_doubling(ahead: int) -> None:
    options = Options(longest_ms=4_000, hangover_ms=2_000)
    data = encode(np.concatenate([silence(1), person(), silence(3)]), options)
    whole = Listening(options).hear(data, 640).finish()
    kept_to = whole.segments()[0][1] + ahead
    again = Listening(options, [ChannelStart(restart=0, kept_to=kept_to)]).hear(data, 640).finish()
    told = again.segments()
    assert told[0][0] == kept_to
    assert all(start < stop for start, stop in told)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(told))
    assert told[-1][1] == whole.segments()[-1][1]


def test_samples_of_what_was_kept_are_let_go() -> None:
    data = to_int16(np.concatenate([silence(1), person()[:40_000], silence(2)])).tobytes()
    front = Front(Options(), starts=[ChannelStart(restart=0, kept_to=10_000_000)])
    assert not [mark for mark in front.feed(data, 0.0) if not isinstance(mark, Advanced)]
    assert 960_000 - front.room <= 24 * 320


def test_audio_begins_600_ms_before_the_earliest_point() -> None:
    options = Options(sample_rate=44_100, channels=2, multichannel=True)
    starts = [ChannelStart(restart=1_920 * 50), ChannelStart(restart=1_920 * 30)]
    front = Front(options, starts=starts)
    assert front.resume_at == 1_920 * 30 - LEAD_IN == front.position
    assert front.resume_at * 44_100 % 16_000 == 0
    assert Front(Options(), starts=[ChannelStart(restart=1_920)]).resume_at == 0


def test_each_channel_goes_on_where_it_was() -> None:
    left, right = person()[:64_000], person()[40_000:104_000]
    sound = np.concatenate([np.stack([silence(3), silence(3)]), np.stack([left, right]), np.zeros((2, 32_000))], axis=1)
    data = to_int16(sound.T.reshape(-1)).tobytes()
    options = Options(channels=2, multichannel=True)
    whole = Listening(options).hear(data, 1_280).finish()
    starts = [ChannelStart(restart=30_720), ChannelStart(restart=15_360, kept_to=15_360)]
    assert {start.restart for start in starts} <= set(offered(whole))
    again = Listening(options, starts)
    again.hear(data[4 * again.front.resume_at :], 1_280).finish()
    for channel in (0, 1):
        assert again.segments(channel) == whole.segments(channel) != []
        assert again.audio(channel) == whole.audio(channel)


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_resampled_audio_resumes_within_a_frame(rate: int) -> None:
    options = Options(sample_rate=rate)
    data = encode(conversation()[:400_000], options)
    whole = Listening(options).hear(data, rate // 25).finish()
    restart = offered(whole)[3]
    again = Listening(options, [ChannelStart(restart=restart)])
    again.hear(data[2 * again.front.layout.samples(again.front.resume_at) :], rate // 25).finish()
    want = [segment for segment in whole.segments() if segment[0] >= restart]
    assert len(again.segments()) == len(want) > 2
    for got, segment in zip(again.segments(), want, strict=True):
        assert abs(got[0] - segment[0]) <= 320
        assert abs(got[1] - segment[1]) <= 320


@pytest.mark.parametrize("starts", [[ChannelStart(restart=100)], [ChannelStart(), ChannelStart()]])
def test_starts_must_fit(starts: list[ChannelStart]) -> None:
    with pytest.raises(ValueError):
        Front(Options(), starts=starts)
