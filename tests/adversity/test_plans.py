"""Plans of the runs: the same seed gives the same plan, and seeds reach everything that can go wrong."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.adversity.runs import odds
from tests.adversity.runs.odds import (
    AWAY,
    CLOCK_HARMS,
    CONSUMERS,
    DISK_HARMS,
    LINE_HARMS,
    LONE_HARMS,
    NODE_HARMS,
    OVER_BY_S,
    REDIS_HARMS,
    RIVALS,
    SERVICE_HARMS,
    SPOKEN_WITHIN_S,
)
from tests.adversity.runs.plan import Plan, make, undisturbed
from tests.adversity.runs.site import RESUME_WINDOW_S
from tests.models import tone

SEEDS = range(300)


@pytest.fixture(scope="module")
def all_plans() -> list[Plan]:
    return [make(seed) for seed in SEEDS]


def test_a_seed_is_a_plan(all_plans: list[Plan]) -> None:
    assert [make(seed) for seed in range(20)] == all_plans[:20]
    assert len({str(plan) for plan in all_plans}) == len(SEEDS)


def test_plans_stay_within_their_bounds(all_plans: list[Plan]) -> None:
    for plan in all_plans:
        assert 2 <= len(plan.voices) <= 8
        assert all(fault.at_s >= 0 and 0 <= fault.lasts_s <= AWAY[1] for fault in plan.faults)
        assert all(fault.at_s + fault.lasts_s <= OVER_BY_S + 2.1 for fault in plan.faults)
        assert [fault.at_s for fault in plan.faults] == sorted(fault.at_s for fault in plan.faults)
        for voice in plan.voices:
            assert voice.speech.seconds / voice.pace <= SPOKEN_WITHIN_S + 0.1, "a run has 15 s"
            assert 1.0 <= voice.pace <= 5.0


def test_faults_of_one_place_are_over_in_time_one_after_the_other(all_plans: list[Plan]) -> None:
    for plan in all_plans:
        ends: dict[str, float] = {}
        for fault in plan.faults:
            if not fault.whom.startswith(("line", "way", "speaker", "consumer")):
                begins = max(fault.at_s, ends.get(fault.place, 0.0))
                ends[fault.place] = begins + fault.lasts_s + fault.takes_s
        assert max(ends.values(), default=0.0) <= OVER_BY_S + 0.1


def test_every_harm_comes_often(all_plans: list[Plan]) -> None:
    named = [(fault.whom.split()[0], fault.what) for plan in all_plans for fault in plan.faults]
    times = Counter(named)
    assert set(times) == {
        *(("line", what) for what in LINE_HARMS),
        *(("way", what) for what in LINE_HARMS),
        *(("node", what) for what in (*NODE_HARMS, *LONE_HARMS, *CLOCK_HARMS, *DISK_HARMS)),
        *(("speaker", what) for what in RIVALS),
        *(("consumer", what) for what in CONSUMERS.values()),
        *((whom, what) for many in (SERVICE_HARMS, REDIS_HARMS) for whom, harms in many.items() for what in harms),
        ("kafka", "kill"),
        ("webhook", "redirect"),
    }
    assert min(times.values()) >= 3
    assert min(times["line", what] for what in LINE_HARMS) >= 30
    assert min(times["node", what] for what in NODE_HARMS) >= 30
    assert min(times["node", what] for what in LONE_HARMS) >= 5
    assert min(times["node", what] for what in (*CLOCK_HARMS, *DISK_HARMS)) >= 20
    assert min(times["speaker", what] for what in RIVALS) >= 20
    digits = [plan.shape for plan in all_plans if plan.spoken == "digits"]
    assert len(digits) == len(SEEDS) // odds.DIGITS_EVERY
    assert set(digits) == {"alone", "pair"}


def test_every_run_of_tones_has_a_file_and_every_line_is_harmed_now_and_then(all_plans: list[Plan]) -> None:
    assert all(len(plan.files) == (plan.spoken == "tones") for plan in all_plans)
    assert all(file.interview in plan.interviews for plan in all_plans for file in plan.files)
    harmed = Counter(
        int(fault.whom.split()[1]) - len(plan.voices)
        for plan in all_plans
        for fault in plan.faults
        if fault.whom.startswith("line")
    )
    assert min(harmed[line] for line in (0, 1, 2)) >= 100, "two viewers and the files"
    assert max(harmed) == 2


def test_outages_last_up_to_a_minute_on_the_fast_clock(all_plans: list[Plan]) -> None:
    away = [fault.lasts_s for plan in all_plans for fault in plan.faults if fault.whom in SERVICE_HARMS]
    assert max(away) * odds.FASTER > 55.0
    assert sum(lasts_s * odds.FASTER > 30.0 for lasts_s in away) >= 50


def test_nodes_of_both_shapes_are_strict_now_and_then(all_plans: list[Plan]) -> None:
    assert all(sum(plan.strict for plan in all_plans if plan.shape == shape) >= 20 for shape in odds.SHAPES)


def test_clocks_of_both_shapes_jump(all_plans: list[Plan]) -> None:
    jumps = {(plan.shape, fault.whom) for plan in all_plans for fault in plan.faults if fault.what in CLOCK_HARMS}
    assert jumps == {("alone", "node 0"), ("pair", "node 0"), ("pair", "node 1")}


def test_somebody_comes_back_in_time_and_too_late(all_plans: list[Plan]) -> None:
    away = [leave.away_s for plan in all_plans if plan.shape == "alone" for leave in plan.leaves]
    assert min(sum(one < RESUME_WINDOW_S - 1 for one in away), sum(one > RESUME_WINDOW_S for one in away)) >= 8


def test_a_reader_reads_where_it_is_harmed(all_plans: list[Plan]) -> None:
    read = Counter(plan.consumer for plan in all_plans if plan.consumer)
    assert set(read) == set(CONSUMERS)
    assert min(read.values()) >= 10


def test_half_of_the_runs_have_two_nodes(all_plans: list[Plan]) -> None:
    assert Counter(plan.shape for plan in all_plans) == {"alone": 150, "pair": 150}
    assert {fault.whom for plan in all_plans for fault in plan.faults} >= {"node 0", "node 1"}
    assert make(4, "pair").shape == "pair"


def test_a_plan_can_be_read(all_plans: list[Plan]) -> None:
    text = str(all_plans[0])
    assert text.startswith("seed 0: alone, tones, ")
    parts = (all_plans[0].voices, all_plans[0].files, all_plans[0].knocks, all_plans[0].leaves, all_plans[0].faults)
    assert len(text.splitlines()) == 1 + sum(map(len, parts))
    assert undisturbed(all_plans[0]).faults == ()
    assert undisturbed(all_plans[0]).voices == all_plans[0].voices


def test_words_lie_where_they_are_said(all_plans: list[Plan]) -> None:
    speech = next(
        voice.speech
        for plan in all_plans
        for voice in plan.voices
        if voice.speech.rate_hz == tone.RATE_HZ and len(voice.speech.channels) == 2
    )
    audio = speech.audio()
    frames = len(audio) // speech.frame_bytes
    assert frames == pytest.approx(speech.seconds * tone.RATE_HZ, abs=len(speech.channels[0]) * 2)
    for word in speech.placed():
        # Channels are interleaved; a word is loud in its middle and in its own channel only.
        middle = (word.start + word.stop) // 2
        samples = memoryview(audio).cast("h")[2 * middle + word.channel : 2 * middle + 640 + word.channel : 2].tolist()
        assert max(map(abs, samples)) > 10_000
        after = memoryview(audio).cast("h")[2 * word.stop + word.channel + 64 :][:512:2].tolist()
        assert max(map(abs, after), default=0) < 2_000
