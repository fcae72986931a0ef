"""Two server processes on one MongoDB and one Redis: a viewer of the one misses nothing that is said to the other."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from pymongo import AsyncMongoClient

from streamsrv.client import Final, Transcription
from tests.services.servers import RedisServer, free_port
from tests.support.speech import silence, voice
from tests.support.watching import WITHIN_S, End, Name, finals_of, name_of

ROOT = Path(__file__).parents[2]
SENTENCES = 8
AUDIO = (voice(1.1) + silence(0.8)) * SENTENCES
STEP = 3_200


class Node:
    """One server process."""

    def __init__(self, folder: Path, mongo: str, redis: RedisServer, database: str) -> None:
        self.port = free_port()
        self._said = (str(self.port), str(folder), mongo, database, redis.url)
        self._log = folder.parent / f"{folder.name}.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.services.node_process", *self._said,
                cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), WITHIN_S * 2)
        assert line == b"ready\n", self._log.read_text("utf-8")

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.communicate()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8")


@asynccontextmanager
async def nodes(folder: Path, mongo: str, redis: RedisServer) -> AsyncIterator[tuple[Node, Node]]:
    database = f"streamsrv_test_{secrets.token_hex(6)}"
    one, two = (Node(folder / name, mongo, redis, database) for name in ("one", "two"))
    try:
        await asyncio.gather(one.start(), two.start())
        yield one, two
    finally:
        await asyncio.gather(one.kill(), two.kill())
        async with AsyncMongoClient[dict[str, object]](mongo) as client:
            await client.drop_database(database)


@asynccontextmanager
async def watching(node: Node) -> AsyncIterator[End]:
    url = f"{node.url}/transcription/stream/talk?role=viewer"
    async with aiohttp.ClientSession() as http, http.ws_connect(url) as ws:
        yield End(ws)


async def speak(urls: list[str], harm: Callable[[], Awaitable[None]]) -> list[str]:
    """Stream at ten times the pace; in the middle something happens.  The texts of the finals."""
    texts: list[str] = []
    async with Transcription(urls, "talk") as stream:

        async def read() -> None:
            texts.extend([event.text async for event in stream.events() if isinstance(event, Final)])

        async def talk() -> None:
            for at in range(0, len(AUDIO), STEP):
                if at == len(AUDIO) // 2 // STEP * STEP:
                    await harm()
                await stream.send(AUDIO[at : at + STEP])
                await asyncio.sleep(0.01)
            await stream.finish()

        await asyncio.gather(read(), talk())
    return texts


async def read_all(watch: End) -> list[Name]:
    async with asyncio.timeout(WITHIN_S):
        while not any(event["type"] == "stream_ended" for event in watch.events):
            await watch.event()
    assert len(finals_of(watch.events)) == len(set(finals_of(watch.events)))
    return [name_of(event) for event in watch.events if event["type"] == "final"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("harm", ["nothing", "node killed", "redis flushed", "redis killed", "redis paused"])
async def test_a_viewer_on_another_process_sees_every_final_once(
    tmp_path: Path, mongo_url: str, own_redis: RedisServer, harm: str
) -> None:
    async with nodes(tmp_path, mongo_url, own_redis) as (one, two), watching(two) as watch:

        async def happens() -> None:
            match harm:
                case "node killed":
                    await one.kill()
                case "redis flushed":
                    await flush(own_redis)
                case "redis killed":
                    own_redis.kill()
                case "redis paused":
                    own_redis.pause()

        texts = await speak([one.url, two.url], happens)
        assert texts == ["w0 w1 w2"] * SENTENCES
        assert [segment for _, _, segment in await read_all(watch)] == list(range(SENTENCES))
        assert ("shared_state.away" in two.log) is (harm in ("redis killed", "redis paused"))
        if harm != "node killed":
            assert "shared_state.connected" in one.log


async def flush(redis: RedisServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", redis.port)
    writer.write(b"FLUSHALL\r\n")
    assert await reader.readline() == b"+OK\r\n"
    writer.close()
