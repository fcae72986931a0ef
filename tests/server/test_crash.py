"""SIGKILL in mid-utterance: the restarted server and the resuming client lose no word and store none twice."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import sys
from pathlib import Path

import pytest

from streamsrv.client import Final, Transcription
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.support.server import running
from tests.support.speech import silence, voice

ROOT = Path(__file__).parents[2]
AUDIO = (
    silence(1.2)
    + voice(1.5)
    + silence(1.6)
    + voice(2.2, seed=1)
    + silence(1.4)
    + voice(1.1, seed=2)
    + silence(1.0)
    + voice(1.9, seed=3)
    + silence(0.7)
)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Server:
    """One server process that can be killed and started again on its data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, *more: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.support.counting_server",
            str(self.port),
            str(self.folder),
            *more,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert await asyncio.wait_for(self.process.stdout.readline(), 20) == b"ready\n"

    async def kill(self) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.process.communicate()


async def stored(folder: Path) -> list[tuple[int, int, str, int]]:
    """What a second opener of the data reads."""
    store = SqliteStore(SqliteSettings(data_dir=str(folder)), server=False)
    await store.open()
    finals = await store.finals("crash")
    await store.close()
    return [(kept.final.start, kept.final.stop, kept.final.text, kept.final.segment) for kept in finals]


async def speak(url: str) -> list[Final]:
    """Stream the recording at ten times its pace and collect the finals."""
    finals: list[Final] = []
    async with Transcription(url, "crash") as stream:

        async def read() -> None:
            finals.extend([event async for event in stream.events() if isinstance(event, Final)])

        async def talk() -> None:
            for at in range(0, len(AUDIO), 3_200):
                await stream.send(AUDIO[at : at + 3_200])
                await asyncio.sleep(0.01)
            await stream.finish()

        await asyncio.gather(read(), talk())
    return finals


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_sigkill_in_mid_utterance_loses_and_doubles_nothing(tmp_path: Path, seed: int) -> None:
    async with running(tmp_path / "undisturbed") as server:
        await speak(f"ws://127.0.0.1:{server.port}")
    wanted = await stored(tmp_path / "undisturbed")
    assert len(wanted) == 4

    chance = random.Random(seed)
    victim = Server(tmp_path / "killed")
    await victim.start()
    speaking = asyncio.create_task(speak(f"ws://127.0.0.1:{victim.port}"))
    try:
        for _ in range(2):
            await asyncio.sleep(chance.uniform(0.2, 0.9))
            await victim.kill()
            await victim.start()
        shown = await asyncio.wait_for(speaking, 40)
    finally:
        speaking.cancel()
        await victim.kill()
    assert await stored(tmp_path / "killed") == wanted, f"seed {seed}"
    assert [(final.text, final.segment) for final in shown] == [(text, segment) for _, _, text, segment in wanted]
