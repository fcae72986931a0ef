"""Newcomers are refused before those inside suffer; who was inside has a reserve."""

from __future__ import annotations

import msgspec
import pytest

from streamsrv.errors import Full
from streamsrv.runtime.admission import RETRY_AFTER_S, UNMEASURED, Admission
from streamsrv.runtime.scheduling.pace import Load

CALM = Load(sessions=20.0, load=0.5, stretch=1.0, share=0.6, oldest_final_s=0.0, within_s=1.0)


def admits(
    *, connected: int = 0, hearing: int = 0, load: Load | None = CALM, resumes: bool = False, most: int = 1_000
) -> bool:
    try:
        Admission(most).check(connected=connected, hearing=hearing, load=load, resumes=resumes)
    except Full:
        return False
    return True


def test_the_cap_holds_for_every_engine_and_resumes_have_a_tenth_more() -> None:
    assert admits(connected=99, most=100, load=None)
    assert not admits(connected=100, most=100, load=None)
    assert admits(connected=109, most=100, load=None, resumes=True)
    assert not admits(connected=110, most=100, load=None, resumes=True)


def test_what_the_engine_bears_is_the_limit_below_the_cap() -> None:
    assert admits(hearing=19)
    assert not admits(hearing=20)
    assert admits(hearing=21, resumes=True)
    assert not admits(hearing=22, resumes=True)


@pytest.mark.parametrize("places", [1, 8, 9])
def test_the_reserve_is_one_place_where_a_tenth_is_less(places: int) -> None:
    assert not admits(connected=places, most=places, load=None)
    assert admits(connected=places, most=places, load=None, resumes=True)
    assert not admits(connected=places + 1, most=places, load=None, resumes=True)
    bears = msgspec.structs.replace(CALM, sessions=places + 0.9)
    assert not admits(hearing=places, load=bears)
    assert admits(hearing=places, load=bears, resumes=True)
    assert not admits(hearing=places + 1, load=bears, resumes=True)


def test_one_session_is_always_taken() -> None:
    assert admits(load=msgspec.structs.replace(CALM, sessions=0.2, load=3.0))


def test_until_it_has_measured_only_so_many_come_in() -> None:
    unmeasured = msgspec.structs.replace(CALM, sessions=None)
    assert admits(hearing=UNMEASURED - 1, load=unmeasured)
    assert not admits(hearing=UNMEASURED, load=unmeasured)


def test_nobody_comes_in_while_those_inside_speak_more_than_fits_or_a_final_is_late() -> None:
    assert not admits(hearing=1, load=msgspec.structs.replace(CALM, load=1.0))
    assert admits(hearing=1, load=msgspec.structs.replace(CALM, load=1.0), resumes=True)
    assert not admits(hearing=1, load=msgspec.structs.replace(CALM, oldest_final_s=1.05))
    assert admits(hearing=1, load=msgspec.structs.replace(CALM, oldest_final_s=1.05), resumes=True)


def test_the_refusal_says_why() -> None:
    late = msgspec.structs.replace(CALM, oldest_final_s=2.5)
    with pytest.raises(Full, match="hears 20 sessions, and bears 20") as refused:
        Admission(100).check(connected=20, hearing=20, load=CALM, resumes=False)
    assert refused.value.http_status == 503
    assert refused.value.retry_after_s == RETRY_AFTER_S
    with pytest.raises(Full, match=r"a final has waited 2\.5 s"):
        Admission(100).check(connected=2, hearing=2, load=late, resumes=False)
