"""What could stop the event loop for longer than a word bears."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import Served

pytestmark = pytest.mark.slow


LEAVES_A_CYCLE = """
import soxr
from streamsrv.server.main import settled
class One: pass
one = One()
one.me, one.resampler = one, soxr.ResampleStream(8_000, 16_000, 1)
settled()
del one
"""


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


def test_what_is_spared_is_collected_at_the_end() -> None:
    """Or libraries that count their objects complain on stderr."""
    done = subprocess.run([sys.executable, "-c", LEAVES_A_CYCLE], capture_output=True, text=True, check=True)
    assert done.stderr == ""
