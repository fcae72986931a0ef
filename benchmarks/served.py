"""Starts and stops the processes that are measured."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

START_WITHIN_S = 60.0
STOP_WITHIN_S = 30.0


@asynccontextmanager
async def process(*arguments: str, cpu: int | None = None) -> AsyncIterator[int]:
    """``python -m`` with these arguments, as a server; yields the port it tells in its first line that has one.

    Args:
        arguments: the module and what it is given.
        cpu: the one core it may run on, from its first instruction.

    Raises:
        RuntimeError: it did not come up.
    """
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=None if cpu is None else lambda: os.sched_setaffinity(0, {cpu}),
    )
    try:
        async with asyncio.timeout(START_WITHIN_S):
            port = await _port(child)
        drained = asyncio.create_task(_drain(child))
        yield port
        drained.cancel()
    finally:
        await _stop(child)


async def _port(child: asyncio.subprocess.Process) -> int:
    assert child.stdout is not None
    async for line in child.stdout:
        told = json.loads(line)
        if "port" in told:
            return int(told["port"])
        if "url" in told:
            return urlsplit(told["url"]).port or 80
    raise RuntimeError("the server process ended before it was ready; its words are above")


async def _drain(child: asyncio.subprocess.Process) -> None:
    assert child.stdout is not None
    while await child.stdout.read(65_536):
        pass


async def _stop(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        assert child.stdin is not None
        child.stdin.close()
        child.terminate()
    try:
        async with asyncio.timeout(STOP_WITHIN_S):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()


def speech_file() -> Path:
    """The recording of a voice that the tests use too."""
    return Path(__file__).resolve().parent.parent / "tests" / "data" / "speech" / "jfk.flac"
