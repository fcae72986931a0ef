"""Segmenter against its oracle, with detectors that are plain functions of what they hear."""

from __future__ import annotations

import itertools
import struct
from array import array
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsrv._native.ring import RingBuffer
from streamsrv._native.segmenter import ADVANCED, BEGAN, ENDED, Segmenter
from streamsrv._native.told import Told
from tests.oracle import FRAME, SegmenterOracle

KNOBS = {"preroll": 4_800, "hangover": 20, "shortest": 10, "longest": 320_000}
QUIET, LOUD = 2, 2_000
SOFT = 30
"""Heard only with more gain than noise of this loudness leaves."""


class Detector:
    """Hears a voice in frames louder than any noise here.  ``moody``: its past since ``reset`` has a say, as a real
    detector's has; so it shows whether resets come where they must."""

    def __init__(self, *, moody: bool = False) -> None:
        self.moody = moody
        self.reset()

    def reset(self) -> None:
        self.mood = 0

    def decide(self, frame: bytes, samples: int) -> bool:
        assert (len(frame), samples) == (2 * FRAME, FRAME)
        loudness = max(struct.unpack(f"{FRAME}h", frame))
        self.mood = (5 * self.mood + loudness) % 97
        return loudness >= 100 and not (self.moody and self.mood % 5 == 0)


def tone(amplitude: int, frames: int) -> list[int]:
    return [amplitude, -amplitude] * (FRAME // 2) * frames


def speech(*runs: tuple[int, int]) -> list[int]:
    """Samples of ``(amplitude, frames)`` one after the other."""
    return [sample for amplitude, frames in runs for sample in tone(amplitude, frames)]


def talk(frames: int) -> list[int]:
    """Loud frames, every fourth softer, so that nobody takes it for a hum."""
    return [sample for frame in range(frames) for sample in tone(900 if frame % 4 == 3 else LOUD, 1)]


class Bench:
    """A segmenter with its ring, fed by hand; remembers all it told."""

    def __init__(
        self, options: dict[str, int] | None = None, *, moody: bool = False, begin: int = 0, lead: int = 0, **knobs: int
    ) -> None:
        self.ring = RingBuffer(960_000)
        self.ring.skip_to(begin - lead)
        self.detector = Detector(moody=moody)
        self.segmenter = Segmenter(
            self.ring, self.detector.decide, self.detector.reset, begin=begin, **(KNOBS | (options or {}) | knobs)
        )
        self.told: list[Told] = []

    def feed(self, samples: Sequence[int], now: float = 0.0) -> list[Told]:
        self.ring.write(array("h", samples))
        told = self.segmenter.advance(now) or []
        self.told += told
        return told

    def flush(self) -> list[Told]:
        told = self.segmenter.flush(0.0)
        self.told += told
        return told

    def part(self) -> list[Told]:
        told = self.segmenter.part(0.0)
        self.told += told
        return told

    def finish(self, now: float = 0.0) -> list[Told]:
        told = self.segmenter.finish(now)
        self.told += told
        return told

    @property
    def boundaries(self) -> list[Told]:
        return boundaries(self.told)


def boundaries(told: Sequence[Told]) -> list[Told]:
    return [fact for fact in told if fact[0] != ADVANCED]


def ends(told: Sequence[Told]) -> list[tuple[int, int, str, bool]]:
    """``(stop, speech_stop, cause, over)`` of each segment."""
    return [(fact[1], fact[2], fact[4], fact[5]) for fact in told if fact[0] == ENDED]


def starts(told: Sequence[Told]) -> list[int]:
    return [fact[1] for fact in told if fact[0] == BEGAN]


# --- against the oracle -----------------------------------------------------------------------------------------

RUNS = st.lists(
    st.tuples(st.sampled_from([0, 1, QUIET, 3, 150, 400, LOUD, 9_000, 30_000]), st.integers(1, 40)), max_size=30
)
ODD_KNOBS = st.fixed_dictionaries(
    {
        "preroll": st.sampled_from([0, 333, 4_800, 16_000]),
        "hangover": st.sampled_from([1, 5, 20, 50]),
        "shortest": st.sampled_from([1, 4, 10, 40]),
        "longest": st.sampled_from([32_000, 33_333, 320_000]),
        "most_gain": st.sampled_from([1, 32]),
    }
)


@given(RUNS, ODD_KNOBS, st.integers(0, 319), st.lists(st.integers(0, 1 << 30), max_size=8), st.booleans())
def test_any_split_tells_what_the_oracle_tells(
    runs: list[tuple[int, int]], knobs: dict[str, int], rest: int, cuts: list[int], moody: bool
) -> None:
    samples = speech(*runs) + tone(LOUD, 1)[:rest]
    bench = Bench(knobs, moody=moody)
    places = [0, *sorted(cut % (len(samples) + 1) for cut in cuts), len(samples)]
    for begin, stop in itertools.pairwise(places):
        bench.feed(samples[begin:stop], now=7.0)
    bench.finish(now=7.0)
    detector = Detector(moody=moody)
    oracle = SegmenterOracle(samples, detector.decide, detector.reset, **(KNOBS | knobs))
    oracle.run(lambda frame: 7.0)
    assert bench.boundaries == oracle.finish()


@given(RUNS, ODD_KNOBS)
def test_a_flush_tells_what_the_oracle_tells(runs: list[tuple[int, int]], knobs: dict[str, int]) -> None:
    samples = speech(*runs)
    bench = Bench(knobs)
    bench.feed(samples, now=7.0)
    bench.flush()
    detector = Detector()
    oracle = SegmenterOracle(samples, detector.decide, detector.reset, **(KNOBS | knobs))
    oracle.run(lambda frame: 7.0)
    assert bench.boundaries == oracle.flush()


@given(RUNS, ODD_KNOBS)
def test_a_parting_tells_what_the_oracle_tells(runs: list[tuple[int, int]], knobs: dict[str, int]) -> None:
    samples = speech(*runs)
    bench = Bench(knobs)
    bench.feed(samples, now=7.0)
    bench.part()
    detector = Detector()
    oracle = SegmenterOracle(samples, detector.decide, detector.reset, **(KNOBS | knobs))
    oracle.run(lambda frame: 7.0)
    assert bench.boundaries == oracle.part()


PAUSES = st.lists(
    st.tuples(st.integers(30, 150), st.sampled_from([QUIET, 3, 6]), st.integers(1, 80), st.sampled_from([400, LOUD])),
    min_size=2,
    max_size=6,
)


@given(
    PAUSES,
    st.sampled_from([0, 4_800, 16_000]),
    st.sampled_from([5, 20]),
    st.lists(st.tuples(st.sampled_from([1, SOFT, LOUD]), st.integers(1, 30)), max_size=4),
)
def test_a_run_that_begins_at_a_restart_point_finds_the_same(
    pauses: list[tuple[int, int, int, int]], preroll: int, hangover: int, first: list[tuple[int, int]]
) -> None:
    samples = speech(
        *first, *(run for pause, low, words, high in pauses for run in ((low, pause), (high, words))), (QUIET, 90)
    )
    whole = Bench(moody=True, preroll=preroll, hangover=hangover, most_gain=32)
    points = {0}
    for at in range(0, len(samples), FRAME):
        for fact in whole.feed(samples[at : at + FRAME]):
            if fact[0] == ADVANCED:
                points.add(fact[2])
    whole.finish()
    assert len(points) > 1
    for point in points:
        lead = min(point, 9_600)
        again = Bench(moody=True, begin=point, lead=lead, preroll=preroll, hangover=hangover, most_gain=32)
        again.feed(samples[point - lead :])
        again.finish()
        later = [fact for fact in whole.boundaries if fact[-1] > point]
        assert whole.boundaries == [f for f in whole.boundaries if f[-1] <= point] + again.boundaries, (point, later)


@given(PAUSES)
def test_restart_points_are_where_they_must_be(pauses: list[tuple[int, int, int, int]]) -> None:
    samples = speech(*(run for pause, low, words, high in pauses for run in ((low, pause), (high, words))), (QUIET, 90))
    bench = Bench()
    for at in range(0, len(samples), FRAME):
        bench.feed(samples[at : at + FRAME])
    bench.finish()
    segments = list(zip(starts(bench.told), [end[0] for end in ends(bench.told)], strict=True))
    offers = [(fact[1], fact[2]) for fact in bench.told if fact[0] == ADVANCED]
    for position, point in offers:
        assert point % 1_920 == 0
        assert point == 0 or position - point >= 4_800 + 6 * FRAME
        assert not any(start < point < stop for start, stop in segments)
    assert [point for _, point in offers] == sorted(point for _, point in offers)


# --- one rule at a time -----------------------------------------------------------------------------------------


def test_four_of_six_frames_begin_speech_and_the_preroll_belongs_to_it() -> None:
    bench = Bench(shortest=1)
    bench.feed(speech((QUIET, 30), (LOUD, 2), (QUIET, 2), (LOUD, 1)))
    assert bench.boundaries == []
    bench.feed(tone(LOUD, 1))
    assert bench.boundaries == [(BEGAN, 30 * FRAME - 4_800, 36 * FRAME)]


def test_a_soft_word_from_the_first_sample_on_is_heard_when_it_is_quiet_again() -> None:
    bench = Bench(most_gain=32)
    bench.feed(speech((SOFT, 12)), now=1.0)
    bench.feed(speech((1, 35)), now=2.0)
    assert bench.boundaries == []
    bench.feed(speech((1, 1)), now=3.0)
    assert bench.boundaries == [(BEGAN, 0, 10 * FRAME), (ENDED, 32 * FRAME, 12 * FRAME, 1.0, "vad", True, 32 * FRAME)]


def test_speech_that_is_heard_late_begins_where_it_began() -> None:
    bench = Bench(most_gain=32, preroll=0)
    bench.feed(speech((SOFT, 30), (1, 1), (SOFT, 20)))
    assert starts(bench.told) == [0]


@pytest.mark.parametrize("close", [Bench.flush, Bench.finish])
def test_a_soft_word_from_the_first_sample_on_is_heard_at_an_early_end(close: Callable[[Bench], list[Told]]) -> None:
    bench = Bench(most_gain=32)
    bench.feed(speech((SOFT, 12), (1, 8)))
    assert bench.boundaries == []
    close(bench)
    assert starts(bench.told) == [0]
    assert [end[0] for end in ends(bench.told)] == [20 * FRAME]


@pytest.mark.parametrize("close", [Bench.flush, Bench.finish, lambda bench: bench.feed(tone(SOFT, 200))])
def test_soft_noise_from_the_first_sample_on_stays_noise(close: Callable[[Bench], list[Told]]) -> None:
    bench = Bench(most_gain=32)
    bench.feed(tone(SOFT, 40))
    close(bench)
    assert bench.boundaries == []


def test_what_is_heard_a_second_time_is_kept_until_then_and_no_longer() -> None:
    bench = Bench(most_gain=32)
    bench.segmenter.keep_from((1 << 63) - 1)
    bench.feed(tone(QUIET, 47))
    assert bench.ring.start == 0
    bench.feed(tone(QUIET, 1))
    assert bench.ring.start == 24 * FRAME


def test_three_of_six_do_not() -> None:
    bench = Bench(shortest=1)
    bench.feed(speech((QUIET, 30), *[(LOUD, 3), (QUIET, 4)] * 9))
    assert bench.boundaries == []


def test_a_short_burst_is_never_announced() -> None:
    bench = Bench()
    bench.feed(speech((QUIET, 30), (LOUD, 9), (QUIET, 60)))
    bench.finish()
    assert bench.boundaries == []
    assert bench.segmenter.silence == 99 * FRAME


def test_a_burst_of_the_shortest_length_is_an_utterance() -> None:
    bench = Bench()
    bench.feed(speech((QUIET, 30), (LOUD, 10), (QUIET, 60)))
    assert starts(bench.told) == [15 * FRAME]
    assert ends(bench.told) == [(60 * FRAME, 40 * FRAME, "vad", True)]


def test_a_burst_does_not_hold_the_ring_for_ever() -> None:
    bench = Bench(shortest=100, hangover=250)
    bench.feed(speech((QUIET, 30), (LOUD, 6), (QUIET, 143)))
    assert bench.boundaries == []
    bench.feed(tone(QUIET, 1))
    assert starts(bench.told) == [15 * FRAME]


def test_the_preroll_does_not_reach_into_the_segment_before() -> None:
    bench = Bench()
    bench.feed(speech((QUIET, 30), (LOUD, 30), (QUIET, 22), (LOUD, 30), (QUIET, 30)))
    assert starts(bench.told) == [15 * FRAME, 80 * FRAME]
    assert ends(bench.told)[0] == (80 * FRAME, 60 * FRAME, "vad", True)


def test_a_pause_shorter_than_the_hangover_ends_nothing() -> None:
    bench = Bench()
    bench.feed(speech((QUIET, 30), *[(LOUD, 10), (QUIET, 19)] * 5))
    assert len(bench.boundaries) == 1


def test_the_arrival_of_the_last_speech_is_told() -> None:
    bench = Bench()
    bench.feed(speech((QUIET, 30), (LOUD, 30)), now=1.0)
    bench.feed(tone(LOUD, 1), now=2.0)
    bench.feed(tone(QUIET, 20), now=3.0)
    assert bench.told[-1] == (ENDED, 81 * FRAME, 61 * FRAME, 2.0, "vad", True, 81 * FRAME)


def test_speech_that_lasts_too_long_is_cut_at_its_quietest() -> None:
    bench = Bench(longest=100_000)
    bench.feed(talk(230) + tone(600, 6) + talk(42) + tone(400, 6) + talk(40))
    # The last quarter before frame 313 are 78 frames: the pause in frames 278 .. 283 lies in it, cut in its middle.
    assert ends(bench.told) == [(281 * FRAME, 278 * FRAME, "length", False)]
    bench.feed(tone(QUIET, 20))
    assert ends(bench.told)[1] == (344 * FRAME, 324 * FRAME, "vad", True)
    assert len(starts(bench.told)) == 1


def test_the_cut_respects_the_last_stable_word() -> None:
    bench = Bench(longest=100_000)
    bench.segmenter.hold(290 * FRAME + 1)
    bench.feed(talk(278) + tone(400, 6) + talk(40))
    ((stop, *_),) = ends(bench.told)
    assert stop in range(291 * FRAME, 314 * FRAME)


def test_a_hold_just_before_the_end_cuts_at_the_end() -> None:
    bench = Bench(longest=100_000)
    bench.segmenter.hold(312 * FRAME)
    bench.feed(talk(320))
    assert [end[0] for end in ends(bench.told)] == [313 * FRAME]


def test_a_hold_beyond_what_is_decided_does_not_bind_yet() -> None:
    bench = Bench(longest=100_000)
    bench.segmenter.hold(100_000_000)
    bench.feed(talk(278) + tone(400, 6) + talk(40))
    assert [end[0] for end in ends(bench.told)] == [281 * FRAME]


def test_an_endless_tone_is_cut_for_ever_and_never_longer_than_the_longest() -> None:
    bench = Bench(longest=32_000)
    for _ in range(20):
        bench.feed(speech((LOUD, 40), (500, 5)))
    stops = [0, *(end[0] for end in ends(bench.told))]
    lengths = [b - a for a, b in itertools.pairwise(stops)]
    assert len(lengths) >= 8
    assert all(0 < length <= 32_000 + FRAME for length in lengths)


def test_steady_noise_is_not_speech_whatever_the_detector_says() -> None:
    bench = Bench()
    bench.feed(speech((QUIET, 30), (LOUD, 300)))
    assert len(ends(bench.told)) == 1
    bench.feed(tone(LOUD, 600))
    assert len(bench.boundaries) == 2


def test_a_flush_in_mid_speech_goes_on_in_the_same_utterance() -> None:
    bench = Bench()
    bench.feed(speech((QUIET, 30), (LOUD, 30), (QUIET, 2)))
    assert bench.flush() == [(ENDED, 62 * FRAME, 60 * FRAME, 0.0, "flush", False, 62 * FRAME)]
    assert bench.flush() == []
    bench.feed(speech((LOUD, 5), (QUIET, 20)))
    assert bench.boundaries[2:] == [(ENDED, 87 * FRAME, 67 * FRAME, 0.0, "vad", True, 87 * FRAME)]


def test_a_flush_after_a_short_pause_ends_the_utterance() -> None:
    bench = Bench()
    bench.feed(speech((QUIET, 30), (LOUD, 30), (QUIET, 3)))
    assert ends(bench.flush()) == [(63 * FRAME, 60 * FRAME, "flush", True)]
    bench.feed(speech((QUIET, 2), (LOUD, 20)))
    assert starts(bench.told)[1] == 63 * FRAME


def test_a_flush_in_silence_tells_nothing() -> None:
    bench = Bench()
    bench.feed(tone(QUIET, 100))
    assert bench.flush() == []


def test_a_parting_cuts_no_word_in_two() -> None:
    bench = Bench()
    bench.feed(speech((QUIET, 30), (LOUD, 30), (QUIET, 10), (LOUD, 11), (QUIET, 9), (LOUD, 20)))
    assert ends(bench.part()) == [(65 * FRAME, 60 * FRAME, "flush", False)], "in the newest pause that is one"
    assert bench.segmenter.in_speech, "the rest is open, for who comes back"
    assert bench.part() == [], "before the rest there is none"


@pytest.mark.parametrize("closed", [1, 9])
def test_lips_that_close_within_a_word_are_no_pause(closed: int) -> None:
    bench = Bench()
    bench.feed(speech((QUIET, 30), (LOUD, 30), (QUIET, closed), (LOUD, 30), (QUIET, closed)))
    assert bench.part() == []


def test_a_parting_in_a_pause_ends_the_utterance() -> None:
    bench = Bench()
    bench.feed(speech((QUIET, 30), (LOUD, 30), (QUIET, 10)))
    assert ends(bench.part()) == [(70 * FRAME, 60 * FRAME, "flush", True)]


@pytest.mark.parametrize(("earliest", "parted"), [(65, True), (66, False), (100, True)])
def test_a_parting_keeps_promised_words_together(earliest: int, parted: bool) -> None:
    bench = Bench()
    bench.feed(speech((QUIET, 30), (LOUD, 30), (QUIET, 10), (LOUD, 11)))
    bench.segmenter.hold(earliest * FRAME)
    assert bool(bench.part()) is parted


def test_a_pause_long_ago_is_forgotten() -> None:
    bench = Bench(longest=320_000)
    bench.feed(speech((QUIET, 30), (LOUD, 30), (QUIET, 10), (LOUD, 256)))
    assert bench.part() == []


@pytest.mark.parametrize("voiced", [3, 5, 12])
def test_a_parting_leaves_the_first_word_whole(voiced: int) -> None:
    bench = Bench()
    bench.feed(speech((QUIET, 30), (LOUD, voiced)))
    assert bench.part() == [], "what was not said to its end is not cut, what is not announced stays so"


@pytest.mark.parametrize("voiced", [2, 3, 5])
def test_a_short_yes_right_before_the_end_is_not_lost(voiced: int) -> None:
    for close, cause in ((Bench.flush, "flush"), (Bench.finish, "finish")):
        bench = Bench()
        bench.feed(speech((QUIET, 40), (LOUD, voiced)))
        close(bench)
        assert starts(bench.told) == [25 * FRAME]
        assert [end[:3] for end in ends(bench.told)] == [((40 + voiced) * FRAME, (40 + voiced) * FRAME, cause)]


def test_one_voiced_frame_before_the_end_is_nothing() -> None:
    bench = Bench()
    bench.feed(speech((QUIET, 40), (LOUD, 1)))
    assert boundaries(bench.finish()) == []


def test_the_last_part_of_a_frame_is_decided_and_positions_stay_within_the_audio() -> None:
    bench = Bench()
    bench.feed(speech((QUIET, 30), (LOUD, 30)) + tone(LOUD, 1)[:101])
    assert ends(bench.finish()) == [(60 * FRAME + 101, 60 * FRAME + 101, "finish", True)]
    assert bench.segmenter.position == 60 * FRAME + 101


def test_nothing_comes_after_the_end() -> None:
    bench = Bench()
    bench.finish()
    with pytest.raises(ValueError):
        bench.segmenter.advance(0.0)
    assert bench.flush() == []


def test_a_detector_that_fails_loses_nothing() -> None:
    bench = Bench()
    decide = bench.detector.decide
    answers = iter([OSError("gone")])

    def failing(frame: bytes, samples: int) -> bool:
        for error in answers:
            raise error
        return decide(frame, samples)

    segmenter = Segmenter(bench.ring, failing, bench.detector.reset, **KNOBS)
    bench.ring.write(array("h", speech((QUIET, 30), (LOUD, 30))))
    with pytest.raises(OSError, match="gone"):
        segmenter.advance(0.0)
    assert boundaries(segmenter.advance(0.0) or [])[0][1] == 15 * FRAME


# --- the ring and the figures -----------------------------------------------------------------------------------


def test_silence_holds_half_a_second_and_speech_what_nobody_released() -> None:
    bench = Bench()
    for _ in range(500):
        bench.feed(tone(QUIET, 1))
    assert bench.ring.allocated == 32_768 or bench.ring.allocated == 16_384
    assert bench.ring.end - bench.ring.start == 24 * FRAME
    bench.feed(speech((LOUD, 100), (QUIET, 200)))
    assert bench.ring.start == starts(bench.told)[0]
    bench.segmenter.keep_from((1 << 63) - 1)
    assert bench.ring.end - bench.ring.start == 24 * FRAME


def test_what_is_advised_in_speech_and_in_silence() -> None:
    bench = Bench()
    bench.feed(speech((QUIET, 30)))
    for _ in range(50):
        bench.feed(tone(LOUD, 1))
    advised = [fact[1] for fact in bench.told if fact[0] == ADVANCED]
    assert all(b - a == 1_600 for a, b in itertools.pairwise(advised))
    bench.told.clear()
    for _ in range(500):
        bench.feed(tone(QUIET, 1))
    points = [fact[2] for fact in bench.told if fact[0] == ADVANCED and fact[2]]
    assert points == sorted(set(points))
    assert {b - a for a, b in itertools.pairwise(points)} == {15_360}


def test_the_loudest_of_what_was_discarded() -> None:
    bench = Bench()
    bench.feed(speech((10, 60), (90, 5), (10, 60), (LOUD, 20), (10, 60)))
    assert bench.segmenter.loudest == 90.0 * 90.0
    assert bench.segmenter.silence == (205 - (145 + 20 - 110)) * FRAME


def test_knobs_have_bounds() -> None:
    for wrong in (
        {"preroll": -1},
        {"preroll": 16_001},
        {"hangover": 0},
        {"hangover": 251},
        {"shortest": 0},
        {"shortest": 101},
        {"longest": 31_999},
        {"longest": 320_001},
        {"most_gain": 0},
        {"most_gain": 3},
        {"most_gain": 128},
        {"begin": -1_920},
        {"begin": 320},
    ):
        with pytest.raises(ValueError):
            Segmenter(RingBuffer(1), Detector().decide, Detector().reset, **(KNOBS | wrong))
    with pytest.raises(TypeError):
        Segmenter(None, Detector().decide, Detector().reset, **KNOBS)  # type: ignore[arg-type]
