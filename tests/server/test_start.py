"""The store was there when it was opened, and goes away before the server has read what a process before left."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from streamsrv import telemetry
from streamsrv.runtime.engines import Engines
from streamsrv.server import app as server_app
from streamsrv.server.app import make_app
from streamsrv.server.main import _door
from streamsrv.settings import ServerSettings, Settings
from streamsrv.stores.sqlite import SqliteSettings
from tests.support.engines import CountingEngine
from tests.support.memory import MemoryStore
from tests.support.processes import free_port
from tests.support.server import running


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_app, "STORE_EVERY_S", 0.05)


async def test_it_waits_and_lets_people_in_when_the_store_is_back(tmp_path: Path) -> None:
    store = MemoryStore()
    store.away = True
    asyncio.get_running_loop().call_later(0.5, setattr, store, "away", False)
    begun = asyncio.get_running_loop().time()
    async with running(tmp_path, store=store) as server, aiohttp.ClientSession() as http:
        assert asyncio.get_running_loop().time() - begun >= 0.5
        async with http.get(f"{server.http}/health/ready") as answer:
            assert answer.status == 200


async def test_who_is_told_to_stop_meanwhile_stops(tmp_path: Path) -> None:
    settings = Settings(server=ServerSettings(port=free_port()), store=SqliteSettings(data_dir=str(tmp_path)))
    store = MemoryStore()
    store.away = True
    numbers = telemetry.Metrics("test")
    app = make_app(settings, store=store, engines=Engines([CountingEngine()], numbers), numbers=numbers)
    stopping = asyncio.create_task(asyncio.sleep(0.3))
    before = asyncio.all_tasks()
    async with asyncio.timeout(5), AsyncExitStack() as stack:
        assert await stack.enter_async_context(_door(app, settings, stopping)) is None
    assert asyncio.all_tasks() <= before, "nothing goes on"
