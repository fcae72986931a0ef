"""Pauses grow, end somewhere, differ, and honour what the other side asks for."""

from __future__ import annotations

import random

from streamsrv.runtime.handoff.patience import FIRST_S, Patience


def test_pauses_double_up_to_the_longest() -> None:
    patience = Patience(30.0, chance=random.Random(1))
    for failures in range(1, 60):
        full = min(30.0, FIRST_S * 2.0 ** min(failures - 1, 30))
        for _ in range(20):
            assert full / 2 <= patience.pause_s(failures) <= full


def test_pauses_differ() -> None:
    patience = Patience(30.0, chance=random.Random(1))
    assert len({patience.pause_s(9) for _ in range(50)}) == 50


def test_what_is_asked_for_is_waited_for() -> None:
    patience = Patience(30.0, chance=random.Random(1))
    assert patience.pause_s(1, asked_s=120.0) == 120.0
    assert patience.pause_s(9, asked_s=0.5) >= 15.0
