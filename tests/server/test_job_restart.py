"""SIGKILL while a file is heard: the restarted server goes on, loses no word and stores none twice."""

from __future__ import annotations

import asyncio
import io
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import msgspec
import pytest

from streamsrv.engines.base import Abilities
from streamsrv.facts import RATE_HZ
from streamsrv.runtime import file_run, job_work
from streamsrv.runtime.engines import machine_settings
from streamsrv.runtime.settings import SessionSettings
from streamsrv.session.settings import MachineSettings
from streamsrv.stores.base import StreamKey
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.server.test_crash import Server
from tests.server.test_upload import Held, desk
from tests.support.engines import CountingEngine
from tests.support.recordings import interleaved, wav
from tests.support.speech import silence, voice

WITHIN_S = 40.0
Take: TypeAlias = Callable[[file_run._Feed, bytes], Awaitable[None]]


def talk(seed: int) -> bytes:
    return b"".join(
        silence(1.4 + (seed + n) % 3) + voice(1.0 + 0.35 * ((seed + n) % 4), seed=seed + n) for n in range(40)
    )


LEFT, RIGHT = talk(0), talk(5)
SIZE = min(len(LEFT), len(RIGHT))
MINUTE = 60 * 2 * RATE_HZ
FILE = wav(interleaved(LEFT[:SIZE], RIGHT[:SIZE]), channels=2)


@asynccontextmanager
async def opened(folder: Path, *, server: bool = False) -> AsyncIterator[SqliteStore]:
    """The store of a server that does not run; only a ``server`` may change it."""
    store = SqliteStore(SqliteSettings(data_dir=str(folder)), server=server)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def stored(folder: Path) -> list[tuple[int, int, int, int, str]]:
    async with opened(folder) as store:
        finals = [kept.final for kept in await store.finals("talk")]
    return [(f.channel, f.segment, f.start, f.stop, f.text) for f in finals]


def _acknowledging(abilities: Abilities, session: SessionSettings) -> MachineSettings:
    """The file is heard in less than the second between two acks: so they come whenever they can."""
    return msgspec.structs.replace(machine_settings(abilities, session), ack_every_s=0.0)


def _in_steps(take: Take) -> Take:
    """What was said before a long silence is stored before the silence is over: only then an ack can move."""

    async def slowly(feed: file_run._Feed, piece: bytes) -> None:
        await take(feed, piece)
        await asyncio.sleep(0.002)

    return slowly


async def _turn(turns: asyncio.Semaphore) -> None:
    await turns.acquire()


async def post(http: aiohttp.ClientSession, port: int, file: bytes = FILE, interview: str = "talk") -> str:
    form = aiohttp.FormData()
    form.add_field("interviewId", interview)
    form.add_field("multichannel", "true")
    form.add_field("file", io.BytesIO(file), filename="a.wav")
    async with http.post(f"http://127.0.0.1:{port}/transcription/upload?wait=0", data=form) as answer:
        assert answer.status == 202, await answer.text()
        return answer.headers["Location"]


async def job(http: aiohttp.ClientSession, port: int, path: str) -> dict[str, Any]:
    async with http.get(f"http://127.0.0.1:{port}{path}") as answer:
        body: dict[str, Any] = await answer.json()
        assert answer.status == 200, body
        return body


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
async def test_sigkill_while_a_file_is_heard_loses_and_doubles_nothing(tmp_path: Path, seed: int) -> None:
    async with desk(tmp_path / "undisturbed") as here:
        await here.send(FILE, multichannel="true")
    wanted = await stored(tmp_path / "undisturbed")
    assert len(wanted) == 79

    chance = random.Random(seed)
    victim = Server(tmp_path / "killed")
    await victim.start("--hear-s", "0.08")
    kills = 0
    try:
        async with aiohttp.ClientSession() as http, asyncio.timeout(WITHIN_S):
            path = await post(http, victim.port)
            while (now := await job(http, victim.port, path))["state"] in ("queued", "running"):
                await asyncio.sleep(chance.uniform(0.02, 0.3))
                if kills < 3:
                    await victim.kill()
                    await victim.start("--hear-s", "0.08")
                    kills += 1
            assert (now["state"], now["progress"]) == ("done", 1.0), now
    finally:
        await victim.kill()
    assert kills == 3
    assert await stored(tmp_path / "killed") == wanted, f"seed {seed}"
    assert os.listdir(tmp_path / "killed" / "uploads") == []


async def test_a_stopped_server_goes_on_where_it_was_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_run, "machine_settings", _acknowledging)
    monkeypatch.setattr(file_run._Feed, "take", _in_steps(file_run._Feed.take))
    file = wav(LEFT[:MINUTE] + silence(300.0) + RIGHT[:MINUTE])
    async with desk(tmp_path / "undisturbed") as here:
        await here.send(file)
    wanted = await stored(tmp_path / "undisturbed")
    first = sum(start < 60 * RATE_HZ for _, _, start, _, _ in wanted)
    assert 10 < first < len(wanted) - 10

    engine = CountingEngine()
    turns = asyncio.Semaphore(first + 2)
    engine.gate = lambda final: _turn(turns)
    folder = tmp_path / "stopped"
    async with desk(folder, engine=engine) as here:
        _, _, one = await here.send(file, wait="0")
        _, _, other = await here.send(wav(voice(1.0)), wait="0", interviewId="other")
        async with asyncio.timeout(WITHIN_S):
            while len(await here.server.store.finals("talk")) < first:  # noqa: ASYNC110 -- nobody tells of changes
                await asyncio.sleep(0.01)
        (stream,) = await here.server.store.streams("talk")
        assert min(stream.restarts) > RATE_HZ, "it will not begin at the beginning"
        (here.uploads / "stray.upload").write_text("left by a crash")
    assert len(os.listdir(folder / "uploads")) >= 2

    # Streams a crash left open are ended at once here, but not those that jobs go on with.
    async with desk(folder, session=SessionSettings(resume_window_s=0.0)) as here:
        assert not (here.uploads / "stray.upload").exists()
        await here.until(one or "", "done")
        await here.until(other or "", "done")
        (stream,) = await here.server.store.streams("talk")
        assert [epoch.epoch for epoch in stream.epochs] == [1, 2]
        assert min(stream.epochs[1].begins) > 0
        assert here.files() == []
    assert await stored(folder) == wanted


async def test_a_job_whose_file_is_gone_fails_and_says_so(tmp_path: Path) -> None:
    engine = CountingEngine()

    async def gate(final: bool) -> None:
        await asyncio.Event().wait()

    engine.gate = gate
    async with desk(tmp_path, engine=engine) as here:
        _, _, location = await here.send(wav(voice(1.0)), wait="0")
    for path in (tmp_path / "uploads").iterdir():
        path.unlink()
    async with desk(tmp_path) as here:
        body = await here.until(location or "", "failed")
        assert body["error"]["code"] == "bad_media"


async def test_a_decoder_that_dies_again_and_again_fails_its_job(tmp_path: Path) -> None:
    import signal

    from streamsrv.server.container import DECODERS

    engine = CountingEngine()
    asked = asyncio.Event()
    go = asyncio.Event()

    async def gate(final: bool) -> None:
        asked.set()
        await go.wait()

    engine.gate = gate
    async with desk(tmp_path, engine=engine) as here:
        _, _, location = await here.send(wav(talk(1) * 4), wait="0")
        async with asyncio.timeout(WITHIN_S):
            await asked.wait()
            cage = await here.server.app[DECODERS].cage()
            while (body := (await here.ask(location or ""))[1])["state"] == "running":
                for pid in cage.pids:
                    os.kill(pid, signal.SIGKILL)
                go.set()
                await asyncio.sleep(0.05)
        assert (body["state"], body["error"]["code"], body["error"]["retryable"]) == ("failed", "decoder_lost", True)
        assert [one.status for one in await here.server.store.streams("talk")] == ["ended"]
        assert here.files() == []


# --- files that take the server along ------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_file_that_kills_the_server_is_given_up_and_the_one_beside_it_is_heard(tmp_path: Path) -> None:
    deadly = wav(silence(1.0) + voice(10.0) + silence(1.0))
    innocent = wav(silence(1.0) + b"".join(voice(1.0, seed=n) + silence(1.0) for n in range(6)))
    server = Server(tmp_path)
    await server.start("--hear-s", "0.5")
    deaths = 0
    try:
        async with aiohttp.ClientSession() as http, asyncio.timeout(WITHIN_S):
            guilty = await post(http, server.port, deadly, "deadly")
            try:
                other = await post(http, server.port, innocent, "innocent")
            except aiohttp.ClientError:  # it may be dead already
                other = ""
            while True:
                try:
                    other = other or await post(http, server.port, innocent, "innocent")
                    jobs = [await job(http, server.port, path) for path in (guilty, other)]
                    if all(one["state"] not in ("queued", "running") for one in jobs):
                        break
                except aiohttp.ClientError:
                    deaths += 1
                    assert deaths <= job_work.MAX_STARTS, "it is tried for ever"
                    await server.kill()
                    await server.start("--hear-s", "0.5")
                await asyncio.sleep(0.02)
    finally:
        await server.kill()
    assert deaths == job_work.MAX_STARTS
    error = jobs[0]["error"]
    assert (jobs[0]["state"], error["code"], error["retryable"]) == ("failed", "server_lost", False)
    assert f"{job_work.MAX_STARTS} times" in error["message"]
    assert error["hint"]
    assert jobs[1]["state"] == "done", jobs[1]
    assert os.listdir(tmp_path / "uploads") == []
    async with opened(tmp_path) as store:
        assert [stream.status for stream in await store.streams("deadly")] == ["ended"]
        assert len(await store.finals("innocent")) == 6


async def test_a_server_that_stops_in_good_order_does_not_blame_the_file(tmp_path: Path) -> None:
    held = Held()
    async with desk(tmp_path, engine=held.engine) as here:
        _, _, location = await here.send(wav(voice(1.0)), wait="0")
        name = (location or "").rpartition("/")[2]
        async with asyncio.timeout(WITHIN_S):
            await held.asked.wait()
        begun = await here.server.store.job(name)
        assert begun is not None
        assert (begun.state, begun.starts) == ("running", 1), "recorded before the work began"
    async with opened(tmp_path) as store:
        left = await store.job(name)
        assert left is not None
        assert (left.state, left.starts) == ("running", 0)


@pytest.mark.parametrize(("reached_s", "state"), [(0, "failed"), (9, "failed"), (12, "done")])
async def test_a_file_that_came_further_is_tried_on(tmp_path: Path, reached_s: int, state: str) -> None:
    """Killed as often as may be, the last time at ``reached_s``."""
    held = Held()
    async with desk(tmp_path, engine=held.engine) as here:
        _, _, location = await here.send(wav(LEFT[:MINUTE]), wait="0")
        async with asyncio.timeout(WITHIN_S):
            await held.asked.wait()
    async with opened(tmp_path, server=True) as store:
        left = await store.job((location or "").rpartition("/")[2])
        assert left is not None
        await store.keep_job(msgspec.structs.replace(left, starts=job_work.MAX_STARTS))
        (stream,) = await store.streams("talk")
        key = StreamKey(interview="talk", stream=stream.id, epoch=1)
        assert await store.keep_progress(key, (reached_s * RATE_HZ,), ())
    async with desk(tmp_path) as here:
        body = await here.until(location or "", "done", "failed")
        assert (body["state"], (body["error"] or {}).get("code")) == (
            (state, None) if state == "done" else (state, "server_lost")
        )
        assert here.files() == []
        assert [one.status for one in await here.server.store.streams("talk")] == ["ended"]
