"""The speakers' words are known, and no two say the same."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from benchmarks.peers.speech import LISTEN_MS, TONES, Kind, speaker
from benchmarks.tape import RATE_HZ
from tests.models import tone


@pytest.mark.parametrize("kind", ["tones", "digits"])
@pytest.mark.parametrize("phase", [0.0, 0.2, 0.5, 0.97])
def test_calls_end_in_time_and_leave_room_to_listen(kind: Kind, phase: float) -> None:
    calls = speaker(kind, 3, 60.0, phase)
    assert calls
    for before, after in pairwise(calls):
        assert after.at_ms - before.stop_ms >= LISTEN_MS - 1
    for call in calls:
        assert call.truth[-1].stop_ms <= call.stop_ms - call.at_ms + 1
        assert call.at_ms + call.truth[-1].stop_ms <= 60_000


def test_the_same_speaker_says_the_same_and_another_does_not() -> None:
    assert speaker("tones", 3, 30.0, 0.1) == speaker("tones", 3, 30.0, 0.1)
    assert speaker("tones", 3, 30.0, 0.1)[0].truth != speaker("tones", 4, 30.0, 0.1)[0].truth


def test_who_is_in_the_middle_of_a_turn_says_its_rest() -> None:
    whole, rest = speaker("tones", 3, 60.0, 0.0)[0], speaker("tones", 3, 60.0, 0.3)[0]
    assert 0 < len(rest.truth) < len(whole.truth)
    assert rest.at_ms < 1_000


def test_tones_stand_where_the_truth_says() -> None:
    (call,) = speaker("tones", 3, 10.0, 0.0)
    samples = np.frombuffer(call.samples, "<i2")
    for number, word in enumerate(call.truth):
        begins = round(number * tone.SLOT_S * RATE_HZ)
        ends = word.stop_ms * RATE_HZ // 1000
        assert np.array_equal(samples[begins:ends], tone.sound([word.text])[: ends - begins])


def test_a_voice_detector_hears_every_tone() -> None:
    webrtcvad = pytest.importorskip("webrtcvad")
    for word in TONES:
        sound = tone.sound([word]).tobytes()
        detector = webrtcvad.Vad(2)
        assert all(detector.is_speech(sound[at : at + 640], RATE_HZ) for at in range(0, 6_400, 640)), word
