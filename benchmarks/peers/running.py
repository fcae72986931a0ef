"""Servers that run, and windows in which so many speakers are on one."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec

from benchmarks.peers.calling import Heard, speak
from benchmarks.peers.judging import Window, judge
from benchmarks.peers.others import Others
from benchmarks.peers.rivals import Runner
from benchmarks.peers.speech import Kind, speaker

START_WITHIN_S = 120.0
"""Importing torch and loading a model take their time."""
STOP_WITHIN_S = 15.0
EARLY_S = 0.5
"""A speaker connects so long before his first word."""
SETTLED_MS = 2_000.0
"""Words that end before are not judged: everybody has connected then."""
SHOWN_BYTES = 2_000
"""Of a server's last words, when it did not come up."""


class NotStarted(Exception):
    """A server did not come up; its last words are in the message."""


class Running:
    """A server that runs."""

    def __init__(self, runner: Runner, port: int) -> None:
        self.name = runner.name
        self._runner, self._port = runner, port

    async def window(self, kind: Kind, sessions: int, seconds: float, seed: int) -> Window:
        """So many speakers for so many seconds.

        The phases of their talking and listening are spread evenly over the cycle, each moved by chance within its
        share: as random as people are, with as many talking at once as on average.
        """
        chance = random.Random(seed)
        places = list(range(sessions))
        chance.shuffle(places)
        phases = [(place + chance.random()) / sessions if sessions > 1 else 0.0 for place in places]
        loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            zero = loop.time() + 1.0
            speakers = [
                self._speaker(http, kind, number, seconds, zero, phase=phase, seed=seed)
                for number, phase in enumerate(phases)
            ]
            others = Others()
            heard = await asyncio.gather(*speakers)
        judged = judge(heard, from_ms=SETTLED_MS, to_ms=1000 * seconds)
        return msgspec.structs.replace(judged, others_cores=others.cores())

    async def _speaker(
        self,
        http: aiohttp.ClientSession,
        kind: Kind,
        number: int,
        seconds: float,
        zero: float,
        *,
        phase: float,
        seed: int,
    ) -> list[Heard]:
        loop = asyncio.get_running_loop()
        heard: list[Heard] = []
        for turn, call in enumerate(speaker(kind, 1000 * seed + number, seconds, phase)):
            begins = zero + call.at_ms / 1000
            await asyncio.sleep(max(0.0, begins - EARLY_S - loop.time()))
            ear = self._runner.ear(100 * (1000 * seed + number) + turn)
            heard.append(await speak(http, self._port, ear, call, begins))
        return heard


@asynccontextmanager
async def started(runner: Runner, kind: Kind) -> AsyncIterator[Running]:
    """Start a server and let one speaker warm it up; at the end it is stopped.

    Raises:
        NotStarted: it did not come up, or did not serve the first speaker.
    """
    port = _free_port()
    with tempfile.NamedTemporaryFile(prefix=f"{runner.name}-", suffix=".log") as log:
        child = await asyncio.create_subprocess_exec(
            *(part.replace("{port}", str(port)) for part in runner.command),
            env=os.environ | dict(runner.environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log.file,
            stderr=log.file,
        )
        try:
            await _listening(child, port, runner.name, Path(log.name))
            running = Running(runner, port)
            warm = await running.window(kind, 1, 5.0, 0)
            if warm.broken:
                raise NotStarted(f"{runner.name} did not serve: {warm.broken[0]}\n{_last_words(Path(log.name))}")
            yield running
        finally:
            await _stop(child)


async def _listening(child: asyncio.subprocess.Process, port: int, name: str, log: Path) -> None:
    try:
        async with asyncio.timeout(START_WITHIN_S):
            while child.returncode is None:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.2)
                    continue
                writer.close()
                return
    except TimeoutError:
        raise NotStarted(f"{name} did not listen within {START_WITHIN_S:g} s\n{_last_words(log)}") from None
    raise NotStarted(f"{name} ended with exit status {child.returncode}\n{_last_words(log)}")


def _last_words(log: Path) -> str:
    return log.read_bytes()[-SHOWN_BYTES:].decode(errors="replace")


async def _stop(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        child.terminate()
    try:
        async with asyncio.timeout(STOP_WITHIN_S):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
