"""Each key's share of the sessions."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from streamsrv.errors import Full
from streamsrv.server.shares import Shares
from streamsrv.shared_state.memory import MemoryState


async def test_a_key_holds_its_share_and_gives_it_back() -> None:
    shares = Shares(2, MemoryState())
    async with AsyncExitStack() as held:
        await held.enter_async_context(shares.hold("one", resumes=False))
        await held.enter_async_context(shares.hold("one", resumes=False))
        with pytest.raises(Full) as refused:
            await held.enter_async_context(shares.hold("one", resumes=False))
        assert refused.value.retry_after_s is not None
        async with shares.hold("two", resumes=False):
            pass
        async with shares.hold("one", resumes=True):
            with pytest.raises(Full):
                await held.enter_async_context(shares.hold("one", resumes=True))
    async with shares.hold("one", resumes=False):
        pass
    assert not shares._held


async def test_a_session_that_fails_gives_its_place_back() -> None:
    shares = Shares(1, MemoryState())
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with shares.hold("one", resumes=False):
                raise ZeroDivisionError


async def test_without_a_limit_everybody_comes_in() -> None:
    shares = Shares(None, MemoryState())
    async with AsyncExitStack() as held:
        for _ in range(1_000):
            await held.enter_async_context(shares.hold("", resumes=False))
