"""Which shared state a server has, and what it says when it cannot have the one that is wished for."""

from __future__ import annotations

import importlib.util

import pytest
from prometheus_client import CollectorRegistry

from streamsrv.errors import SetupError
from streamsrv.events import StreamOver
from streamsrv.runtime.neighbours import make_shared
from streamsrv.settings import load, show
from streamsrv.shared_state._redis import link
from streamsrv.shared_state._redis.settings import RedisSettings
from streamsrv.shared_state.memory import MemoryState

SECRET = "redis://:open-sesame@example.test:6379/0"


async def test_one_node_alone_needs_nothing() -> None:
    shared = make_shared(RedisSettings(), CollectorRegistry())
    assert isinstance(shared, MemoryState)
    assert shared.condition == "alone"
    shared.watch("i")
    shared.tell("i", "s", StreamOver())
    assert await shared.reserve("key", "1", 1) is True


def test_without_the_extra_it_says_the_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "find_spec", lambda name: None)
    with pytest.raises(SetupError) as refused:
        make_shared(RedisSettings(url=SECRET), CollectorRegistry())
    assert "pip install 'streamsrv[redis]'" in refused.value.hint
    assert "sesame" not in str(refused.value)


@pytest.mark.skipif(importlib.util.find_spec("redis") is None, reason="the extra is not installed")
def test_an_address_that_makes_no_sense_is_refused_without_being_told() -> None:
    with pytest.raises(SetupError, match="no address") as refused:
        make_shared(RedisSettings(url="redis://:open-sesame@host:port/x"), CollectorRegistry())
    assert "sesame" not in str(refused.value) + refused.value.hint


def test_the_address_is_a_secret() -> None:
    effective = load(environ={"STREAMSRV_REDIS_URL": SECRET})
    assert effective.settings.redis.url == SECRET
    assert "sesame" not in show(effective)
    with pytest.raises(SetupError) as refused:
        load(environ={"STREAMSRV_REDIS_URL": "http://:open-sesame@host"})
    assert "sesame" not in str(refused.value) + refused.value.hint
