"""Names of interviews."""

from __future__ import annotations

import re

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from streamsrv.errors import BadRequest
from streamsrv.server.names import RESERVED, interview_of


def taken(name: str) -> bool:
    request = make_mocked_request("GET", "/", match_info={"interview": name})
    try:
        return interview_of(request) == name
    except BadRequest:
        return False


@pytest.mark.parametrize(
    "name", ["a", "Z", "0", "a.b", "a:b", "a_b", "a-b", "a-", "a.", "x" * 128, "streams", "UPLOAD"]
)
def test_names(name: str) -> None:
    assert taken(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a..b", ".a", "-a", "a\n", "\na", "a b", "x" * 129, *"\u00e9\u0430\u0663", *sorted(RESERVED)],
)
def test_no_names(name: str) -> None:
    assert not taken(name)


def test_the_error_does_not_repeat_the_name() -> None:
    with pytest.raises(BadRequest) as refused:
        interview_of(make_mocked_request("GET", "/", match_info={"interview": "CANARY/.."}))
    assert "CANARY" not in refused.value.message + refused.value.hint


@given(st.text(max_size=140))
def test_what_is_taken_is_harmless(name: str) -> None:
    harmless = re.fullmatch("[A-Za-z0-9][A-Za-z0-9_.:-]*", name) and ".." not in name and len(name) <= 128
    assert taken(name) == bool(harmless and name not in RESERVED)
