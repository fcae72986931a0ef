"""The real process from its start to its end: every signal, at any time, loses nothing and leaves nothing behind."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from streamsrv.client import Final, Refused, Transcription
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.adversity.arena import UTTERANCE, Talker
from tests.support.processes import WITHIN_S, Served
from tests.support.recordings import wav
from tests.support.speech import silence, voice

pytestmark = pytest.mark.slow


@asynccontextmanager
async def served(folder: Path, **environment: str) -> AsyncIterator[Served]:
    server = Served(folder, environment)
    try:
        yield server
    finally:
        if hasattr(server, "process"):
            await server.kill()


async def speak(server: Served, http: aiohttp.ClientSession, interview: str = "raw") -> Talker:
    talker = Talker(await http.ws_connect(f"{server.ws}/transcription/stream/{interview}"))
    await talker.until("ready")
    return talker


async def closed_with(talker: Talker) -> object:
    """Read to the end; the code of the server's close frame, also when the server is gone before it is answered."""
    while (message := await talker.ws.receive(WITHIN_S)).type is aiohttp.WSMsgType.TEXT:
        talker.seen.append(json.loads(message.data))
    return message.data


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def gone(pids: list[int]) -> None:
    async with asyncio.timeout(5):
        while any(Path(f"/proc/{pid}").exists() for pid in pids):  # noqa: ASYNC110, ASYNC240 -- nobody tells
            await asyncio.sleep(0.01)


# --- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_ends_it_well(tmp_path: Path, number: signal.Signals) -> None:
    async with served(tmp_path, HEAR_S="0.4") as server, aiohttp.ClientSession() as http:
        await server.start()
        talkers = [await speak(server, http, f"i-{one}") for one in range(4)]
        await asyncio.gather(*(talker.begin_to_speak() for talker in talkers))
        silent = await speak(server, http, "silent")
        server.signal(number)
        await talkers[0].until("goaway")
        ends = [asyncio.create_task(closed_with(talker)) for talker in (*talkers, silent)]
        assert (await server.get("/health/ready"))[0] == 503, "at once, while others still speak"
        for path in ("/transcription/stream/new", "/transcription/stream/new?role=viewer"):
            async with http.get(server.http + path, headers=UPGRADE) as refused:
                assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        form = aiohttp.FormData({"interviewId": "new", "file": io.BytesIO(wav(silence(0.5)))})
        async with http.post(server.http + "/transcription/upload", data=form) as refused:
            assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert await asyncio.gather(*ends) == [1012] * 5
        assert [talker.seen[-1]["code"] for talker in (*talkers, silent)] == ["draining"] * 5
        assert [len(talker.all("final")) for talker in (*talkers, silent)] == [1, 1, 1, 1, 0]
        assert await server.end(5) == 0
        for one, talker in enumerate(talkers):
            shown = [final["text"] for final in talker.all("final")]
            assert shown[0].startswith("w0"), "as far as the last pause"
            assert [kept.final.text for kept in await server.finals(f"i-{one}")] == shown
            assert [stream.status for stream in await server.streams(f"i-{one}")] == ["live"]
        assert server.events()[-1] == "server.stopped"


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


async def hearing_for_long(server: Served, http: aiohttp.ClientSession) -> Talker:
    """A session whose final takes longer than anybody waits."""
    talker = await speak(server, http)
    await talker.send(UTTERANCE)
    await talker.until("speech_stopped")
    return talker


async def test_who_cannot_leave_in_time_is_told_to_go_and_loses_nothing(tmp_path: Path) -> None:
    async with served(tmp_path, HEAR_S="60", STREAMSRV_SERVER_DRAIN_S="2") as server, aiohttp.ClientSession() as http:
        await server.start()
        talker = await hearing_for_long(server, http)
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        assert await talker.end() == 1012
        assert await server.end(4) == 0
        assert time.monotonic() - began < 3
        assert talker.all("final") == []
        assert max(ack["samples"] for ack in talker.all("ack") or [{"samples": 0}]) == 0, "nothing unheard is acked"


async def test_a_second_signal_hurries(tmp_path: Path) -> None:
    async with served(tmp_path, HEAR_S="60") as server, aiohttp.ClientSession() as http:
        await server.start()
        talker = await hearing_for_long(server, http)
        server.signal(signal.SIGTERM)
        await talker.until("goaway")
        server.signal(signal.SIGTERM)
        assert await talker.end() == 1012
        assert await server.end(3) == 0
        assert "server.hurried" in server.events()


async def test_a_client_that_knows_two_servers_goes_to_the_other(tmp_path: Path) -> None:
    """Each has a store of its own here, so the other one cannot know the stream: it must have been asked at once."""
    async with served(tmp_path / "a") as first, served(tmp_path / "b") as second:
        await asyncio.gather(first.start(), second.start())
        with pytest.raises(Refused, match="no such stream"):
            await _speak_until_stopped(first, second)


async def _speak_until_stopped(first: Served, second: Served) -> None:
    async with Transcription([first.ws, second.ws], "both") as stream:
        await stream.send(UTTERANCE)
        async for event in stream.events():
            if isinstance(event, Final):
                first.signal(signal.SIGTERM)


async def test_an_upload_in_flight_is_gone_on_with_by_the_next_process(tmp_path: Path) -> None:
    talk = b"".join(voice(1.0 + one % 3 * 0.3, seed=one) + silence(1.5) for one in range(12))
    async with served(tmp_path, HEAR_S="0.15") as server, aiohttp.ClientSession() as http:
        await server.start()
        form = aiohttp.FormData({"interviewId": "file", "file": io.BytesIO(wav(talk))})
        async with http.post(server.http + "/transcription/upload?wait=0", data=form) as taken:
            job = taken.headers["Location"]
        async with asyncio.timeout(20):
            while not await server.finals("file"):  # noqa: ASYNC110 -- another process's doing
                await asyncio.sleep(0.05)
        cages = children(server.process.pid)
        server.signal(signal.SIGTERM)
        assert await server.end(10) == 0
        await gone(cages)
        some = len(await server.finals("file"))
        assert 0 < some < 12
        await server.start()
        async with asyncio.timeout(20):
            while (await server.get(job))[1]["state"] in ("queued", "running"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert (await server.get(job))[1]["state"] == "done"
        assert [kept.final.segment for kept in await server.finals("file")] == list(range(12))


# --- the beginning --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_while_it_starts_ends_it_well(tmp_path: Path, number: signal.Signals) -> None:
    async with served(tmp_path, START_S="30", STREAMSRV_SERVER_LOG_LEVEL="debug") as server:
        await server.start(until="")
        async with asyncio.timeout(20):  # the lock is taken: the store is open, and the engine loads
            while not (tmp_path / "server.lock").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        server.signal(number)
        assert await server.end(5) == 0
        assert "server.ready" not in server.events()
        await server.start(until="")  # nothing holds the data any more
        await asyncio.sleep(0.5)
        assert server.process.returncode is None


async def test_sphinx_is_stopped_while_it_starts_and_leaves_no_process(tmp_path: Path) -> None:
    for after_s in (0.6, 0.9, 1.2, 1.6):
        async with served(tmp_path) as server:
            server.module = ("streamsrv", "serve", "--engine", "sphinx")
            await server.start(until="")
            await asyncio.sleep(after_s)
            kin = children(server.process.pid)
            grandchildren = [one for child in kin for one in children(child)]
            server.signal(signal.SIGTERM)
            assert await server.end(5) in (0, -signal.SIGTERM), "which is before it can listen to anything"
            await gone([*kin, *grandchildren])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_engine_processes_go_with_their_server(tmp_path: Path, number: signal.Signals) -> None:
    async with served(tmp_path) as server:
        server.module = ("streamsrv", "serve", "--engine", "sphinx")
        await server.start()
        kin = children(server.process.pid)
        kin += [one for child in kin for one in children(child)]
        assert kin
        server.signal(number)
        assert await server.end(10) == (0 if number is signal.SIGTERM else -number)
        await gone(kin)


# --- circumstances --------------------------------------------------------------------------------------------------


TOLD = ["w0 w1 w2", "w0 w1 w2 w3", "w0 w1 w2 w3"]
"""What is heard of three utterances; pre-roll makes the later ones longer."""


async def told(server: Served, interview: str = "raw") -> list[str]:
    """Speak three utterances through the client library; the texts of the finals."""
    finals: list[str] = []
    async with Transcription(server.ws, interview) as stream:

        async def read() -> None:
            finals.extend([event.text async for event in stream.events() if isinstance(event, Final)])

        reading = asyncio.create_task(read())
        await stream.send(UTTERANCE * 3)
        await stream.finish()
        await reading
    return finals


async def test_row_69_without_asserts_it_behaves_the_same(tmp_path: Path) -> None:
    async with served(tmp_path, PYTHONOPTIMIZE="1") as server:
        await server.start()
        assert await told(server) == TOLD
        server.signal(signal.SIGTERM)
        assert await server.end(5) == 0


@pytest.mark.parametrize("zone", ["America/New_York", "Pacific/Kiritimati", "Mars/Olympus"])
async def test_the_time_zone_means_nothing(tmp_path: Path, zone: str) -> None:
    """What one process stored, one in another zone goes on with."""
    async with served(tmp_path, TZ="Asia/Kathmandu") as server:
        await server.start()
        assert await told(server) == TOLD
        server.signal(signal.SIGTERM)
        assert await server.end(5) == 0
    before = (await server.streams("raw"))[0].started_ms
    async with served(tmp_path, TZ=zone) as server:
        await server.start()
        assert await told(server) == TOLD
        _, transcript = await server.get("/transcription/raw?clock=wall")
        first, second = await server.streams("raw")
        assert first.started_ms == before < second.started_ms < before + 60_000
        assert {line["stream"] for line in transcript["segments"]} == {first.id, second.id}
        assert len(transcript["segments"]) == 6
        assert all(line["start"].endswith("Z") for line in transcript["segments"])


async def test_row_67_too_few_file_descriptors_refuse_politely_and_harm_nobody(tmp_path: Path) -> None:
    """Connections over the limit wait or are refused; who is inside speaks on, and the server ends well."""
    server = Served(tmp_path, prefix=("prlimit", "--nofile=64:64"))
    try:
        await server.start()
        async with aiohttp.ClientSession() as http:
            talker = await speak(server, http)
            crowd = await asyncio.gather(
                *(asyncio.open_connection("127.0.0.1", server.port) for _ in range(120)), return_exceptions=True
            )
            final = await talker.utter()
            assert final["text"] == "w0 w1 w2"
            for peer in crowd:
                if isinstance(peer, tuple):
                    peer[1].close()
            final = await talker.utter()
            async with asyncio.timeout(10):
                assert (await server.get("/health"))[0] == 200
            assert await talker.finish() == 1000
        server.signal(signal.SIGTERM)
        assert await server.end(10) == 0
        assert len(await server.finals("raw")) == 2
    finally:
        await server.kill()


async def test_row_63_a_real_full_disk(tmp_path: Path, small_disk: Path) -> None:
    """Store and spool are full together: finals wait, nothing is acknowledged, and all is there when there is room."""
    async with served(small_disk / "data") as server, aiohttp.ClientSession() as http:
        await server.start()
        talker = await speak(server, http)
        await talker.utter()
        ballast = small_disk / "ballast"
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        ballast.write_bytes(b"x" * free)
        for _ in range(40):
            await talker.send(UTTERANCE)
            await talker.until("speech_stopped")
            if talker.all("degraded"):
                break
        while "spool_full" not in [warning["code"] for warning in talker.all("warning")]:
            assert await talker.next() is not None
        shown = len(talker.all("final"))
        ballast.unlink()
        await talker.until("degraded", active=False)
        assert await talker.finish() == 1000
        finals = [final["segment"] for final in talker.all("final")]
        assert finals == list(range(len(finals)))
        assert len(finals) > shown
        assert [kept.final.segment for kept in await server.finals("raw")] == finals
        server.signal(signal.SIGTERM)
        assert await server.end(5) == 0


async def test_row_63_a_full_store_with_the_spool_on_another_disk(tmp_path: Path, small_disk: Path) -> None:
    environment = {"STREAMSRV_SPOOL_DIR": str(tmp_path / "spool")}
    async with served(small_disk / "data", **environment) as server, aiohttp.ClientSession() as http:
        await server.start()
        talker = await speak(server, http)
        await talker.utter()
        ballast = small_disk / "ballast"
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        ballast.write_bytes(b"x" * free)
        for _ in range(60):
            if (await talker.utter())["durable"] == "spool":
                break
        assert talker.all("final")[-1]["durable"] == "spool"
        server.signal(signal.SIGKILL)
        await server.end()
        shown = [final["segment"] for final in talker.all("final")]
        ballast.unlink()
        await server.start()
        assert [kept.final.segment for kept in await server.finals("raw")] == shown


# --- killed at any instant ------------------------------------------------------------------------------------------


async def test_sigkill_at_many_instants_of_a_start_is_repaired(tmp_path: Path) -> None:
    """Also in the middle of its first migration, and of finding what the one before left."""
    chance = random.Random(4)
    server = Served(tmp_path)
    for _ in range(8):
        await server.start(until="")
        await asyncio.sleep(chance.uniform(0.2, 1.4))
        await server.kill()
    try:
        await server.start()
        assert await told(server) == TOLD
    finally:
        await server.kill()
    store = SqliteStore(SqliteSettings(data_dir=str(tmp_path)), server=False)
    await store.open()
    assert await store.left_streams() == ()
    await store.close()
