"""Two nodes of one service in this process: two servers on one store, joined by a real Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple, cast

import aiohttp
from redis.asyncio import Redis

from streamsrv import telemetry
from streamsrv.settings import ServerSettings
from streamsrv.shared_state.redis import RedisSettings, RedisState
from streamsrv.stores.base import TranscriptStore
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.support.server import Running, running
from tests.support.watching import WITHIN_S, until

TIMEOUT_S = 0.3
"""What Redis may take in tests: a busy machine is no reason to be degraded."""


class Lent:
    """An open store that each node may open and close without that meaning anything."""

    def __init__(self, store: TranscriptStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass


def lent(store: TranscriptStore) -> TranscriptStore:
    return cast("TranscriptStore", Lent(store))


def joined(url: str, node: str) -> Callable[[telemetry.Metrics], RedisState]:
    """A node's way to the others."""
    settings = RedisSettings(url=url, node=node, timeout_s=TIMEOUT_S)
    return lambda numbers: RedisState(settings, numbers.registry)


class Nodes(NamedTuple):
    one: Running
    two: Running


@asynccontextmanager
async def two_nodes(
    folder: Path, url: str, *, server: ServerSettings | None = None, well: bool = True
) -> AsyncIterator[Nodes]:
    """Both listen, and (``well``) have found each other."""
    store = SqliteStore(SqliteSettings(data_dir=str(folder / "data")))
    await store.open()
    try:
        async with AsyncExitStack() as stack:
            one, two = [
                await stack.enter_async_context(
                    running(folder / name, server=server, store=lent(store), shared=joined(url, name))
                )
                for name in ("one", "two")
            ]
            if well:
                await until(lambda: condition(one) == condition(two) == "ok")
            yield Nodes(one, two)
    finally:
        await store.close()


def condition(server: Running) -> str:
    return server.shared.condition


async def until_so(ask: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Ask until the answer is what is wanted."""
    async with asyncio.timeout(WITHIN_S):
        for pause in chain([0.0], repeat(0.01)):
            await asyncio.sleep(pause)
            if await ask() == wanted:
                return


@asynccontextmanager
async def neighbour_client(url: str) -> AsyncIterator[Redis]:
    """Somebody else who uses this Redis."""
    client = Redis.from_url(url, protocol=2, decode_responses=True)
    try:
        yield client
    finally:
        await client.aclose()


def count(server: Running, what: str) -> float:
    """How many messages between nodes were ``published``, ``received``, ``dropped`` or ``missed``."""
    value = server.numbers.registry.get_sample_value("streamsrv_shared_messages_total", {"what": what})
    assert value is not None
    return value


async def health(server: Running) -> dict[str, Any]:
    async with aiohttp.ClientSession() as http, http.get(server.http + "/health") as answer:
        body: dict[str, Any] = json.loads(await answer.text())
        return body
