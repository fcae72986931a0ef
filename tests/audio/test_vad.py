from __future__ import annotations

import numpy as np
import pytest

from streamsrv.audio.vad import FRAME, WebRtcVad
from tests.audio.sounds import hiss, person, to_int16


def decisions(vad: WebRtcVad, samples: bytes) -> list[bool]:
    size = 2 * FRAME
    return [bool(vad.decide(samples[at : at + size], FRAME)) for at in range(0, len(samples) - size + 1, size)]


def test_a_person_has_a_voice_and_silence_has_none() -> None:
    assert np.mean(decisions(WebRtcVad(2), to_int16(person()).tobytes())) > 0.6
    assert not any(decisions(WebRtcVad(2), bytes(64_000)))


def test_a_detector_that_was_reset_is_as_new() -> None:
    speech = to_int16(person()).tobytes()
    used = WebRtcVad(2)
    decisions(used, to_int16(0.3 * hiss(5)).tobytes())
    used.reset()
    assert decisions(used, speech) == decisions(WebRtcVad(2), speech)


def test_aggressiveness_survives_a_reset() -> None:
    speech = to_int16(0.02 * person() + 0.003 * hiss(11)).tobytes()
    voiced = []
    for aggressiveness in (0, 3):
        vad = WebRtcVad(aggressiveness)
        vad.reset()
        voiced.append(sum(decisions(vad, speech)))
    assert voiced[0] > voiced[1]


def test_a_frame_of_another_length_is_an_error_not_a_guess() -> None:
    with pytest.raises(Exception, match="processing"):
        WebRtcVad(2).decide(b"\0" * 100, 50)
