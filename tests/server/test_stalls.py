"""What could stop the event loop for longer than a word bears."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.processes import Served

pytestmark = pytest.mark.slow


async def test_the_collector_walks_through_what_sessions_made_and_not_through_the_libraries(tmp_path: Path) -> None:
    server = Served(tmp_path)
    server.module = ("tests.support.collected_server",)
    await server.start()
    try:
        server.signal(signal.SIGTERM)
        told = await server.said("collector")
        assert told["spared"] > 20_000
        assert told["walked"] < told["spared"] / 4
        assert await server.end() == 0
    finally:
        await server.kill()
