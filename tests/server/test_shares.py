"""Each key's share of the sessions."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from streamsrv.errors import Full
from streamsrv.server.shares import Shares


def test_a_key_holds_its_share_and_gives_it_back() -> None:
    shares = Shares(2)
    with ExitStack() as held:
        held.enter_context(shares.hold("one", resumes=False))
        held.enter_context(shares.hold("one", resumes=False))
        with pytest.raises(Full) as refused, shares.hold("one", resumes=False):
            pass
        assert refused.value.retry_after_s is not None
        with shares.hold("two", resumes=False):
            pass
        with shares.hold("one", resumes=True), pytest.raises(Full), shares.hold("one", resumes=True):
            pass
    with shares.hold("one", resumes=False):
        pass
    assert not shares._held


def test_a_session_that_fails_gives_its_place_back() -> None:
    shares = Shares(1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), shares.hold("one", resumes=False):
            raise ZeroDivisionError


def test_without_a_limit_everybody_comes_in() -> None:
    shares = Shares(None)
    with ExitStack() as held:
        for _ in range(1_000):
            held.enter_context(shares.hold("", resumes=False))
