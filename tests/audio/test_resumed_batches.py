"""A resumed channel fed in large pieces: a kept segment's end and the next one's beginning may come at once."""

from __future__ import annotations

import pytest

from streamsrv.audio.front import Front
from streamsrv.commands import Options
from streamsrv.facts import ChannelStart, SpeechBegan, SpeechEnded
from tests.support.speech import silence, voice

AUDIO = silence(0.5) + voice(1.5) + silence(0.6) + voice(1.5, seed=1) + silence(0.6) + voice(1.5, seed=2) + silence(0.8)


def segments(front: Front, piece: int) -> list[tuple[int, int]]:
    """What is told, each read back when it has ended, as an engine would."""
    found: list[tuple[int, int]] = []
    start = 0
    for at in range(0, len(AUDIO), piece):
        for mark in front.feed(AUDIO[at : at + piece], float(at)):
            if isinstance(mark, SpeechBegan):
                start = mark.start
            elif isinstance(mark, SpeechEnded):
                assert len(front.read(0, start, mark.stop)) == 2 * (mark.stop - start)
                found.append((start, mark.stop))
    return found


@pytest.mark.parametrize("piece", [640, 32_000, 64_000, 100_000, 1_000_000])
@pytest.mark.parametrize("kept", [1, 2])
def test_every_segment_after_the_kept_ones_can_be_read(piece: int, kept: int) -> None:
    whole = segments(Front(Options()), 640)
    assert len(whole) == 3
    front = Front(Options(), starts=(ChannelStart(kept_to=whole[kept - 1][1], next_segment=kept),))
    assert segments(front, piece) == whole[kept:]
    assert front.room > 0
