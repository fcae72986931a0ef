"""Containers on the socket: found by their first bytes, decoded as they arrive, resumed from their first byte."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from streamsrv.server.container import DECODERS
from tests.support.engines import CountingEngine
from tests.support.recordings import encoded, interleaved, wav, webm
from tests.support.server import Running, running
from tests.support.speech import silence, voice

RATE = 48_000
TALK = (
    silence(0.6, rate=RATE)
    + voice(1.2, rate=RATE)
    + silence(2.6, rate=RATE)
    + voice(1.7, seed=1, rate=RATE)
    + silence(0.8, rate=RATE)
)
WITHIN_S = 20.0


class Speaker:
    """Sends a container."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.seen: list[dict[str, Any]] = []

    async def next(self) -> dict[str, Any] | None:
        message = await self.ws.receive(WITHIN_S)
        if message.type is not aiohttp.WSMsgType.TEXT:
            return None
        event: dict[str, Any] = json.loads(message.data)
        self.seen.append(event)
        return event

    async def until(self, kind: str) -> dict[str, Any]:
        while (event := await self.next()) is not None:
            if event["type"] == kind:
                return event
        raise AssertionError(f"closed with {self.ws.close_code} before {kind}: {self.seen[-3:]}")

    async def end(self) -> int | None:
        while await self.next() is not None:
            pass
        return self.ws.close_code

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.seen if event["type"] == kind]

    async def send(self, data: bytes, sizes: random.Random | int = 4_000) -> None:
        at = 0
        while at < len(data):
            size = sizes if isinstance(sizes, int) else sizes.choice((1, 3, 11, 700, 5_000))
            await self.ws.send_bytes(data[at : at + size])
            at += size


class Hall:
    def __init__(self, server: Running, http: aiohttp.ClientSession) -> None:
        self.server = server
        self.http = http

    async def join(self, interview: str = "talk", query: str = "") -> Speaker:
        speaker = Speaker(await self.http.ws_connect(self.server.stream(interview, query)))
        await speaker.until("ready")
        return speaker

    async def say(self, data: bytes, *, query: str = "", sizes: random.Random | int = 4_000) -> Speaker:
        """A whole container, then ``finish``."""
        speaker = await self.join(query=query)
        await speaker.send(data, sizes)
        await speaker.ws.send_json({"type": "finish"})
        await speaker.end()
        return speaker


@pytest.fixture
async def hall(tmp_path: Path) -> AsyncIterator[Hall]:
    async with running(tmp_path) as server, aiohttp.ClientSession() as http:
        yield Hall(server, http)


def shape(speaker: Speaker) -> list[tuple[int, int, str]]:
    return [(final["start_ms"], final["stop_ms"], final["text"]) for final in speaker.all("final")]


@pytest.mark.parametrize("seed", range(3))
async def test_webm_in_any_split_says_the_same(hall: Hall, seed: int) -> None:
    data = webm(TALK)
    whole = shape(await hall.say(data, sizes=1_000_000))
    assert [text.split()[-1] for *_, text in whole] == ["w3", "w4"]
    split = await hall.say(data, sizes=random.Random(seed))
    assert shape(split) == whole
    assert split.ws.close_code == 1000
    (configured,) = split.all("configured")
    options = configured["options"]
    assert (options["encoding"], options["sample_rate"], options["channels"]) == ("container", RATE, 1)


@pytest.mark.parametrize(
    "data",
    [wav(TALK, rate=RATE), encoded(TALK, "FLAC", rate=RATE), encoded(TALK, "OGG", "OPUS", rate=RATE)],
    ids=["wav", "flac", "ogg opus"],
)
async def test_containers_say_what_their_samples_say(hall: Hall, data: bytes) -> None:
    bare = await hall.say(TALK, query=f"sample_rate={RATE}")
    held = await hall.say(data)
    assert held.all("warning") == []
    got, wanted = shape(held), shape(bare)
    assert [text for *_, text in got] == [text for *_, text in wanted]
    assert all(abs(one[0] - other[0]) <= 60 for one, other in zip(got, wanted, strict=True))


async def test_the_first_words_come_before_the_last_bytes(hall: Hall) -> None:
    """A recorder never ends its file before the talk does."""
    speaker = await hall.join()
    data = webm(TALK)
    await speaker.send(data[: len(data) * 9 // 10])
    partial = await speaker.until("partial")
    assert partial["text"].startswith("w0")
    final = await speaker.until("final")
    assert final["segment"] == 0
    await speaker.send(data[len(data) * 9 // 10 :])
    await speaker.ws.close()
    async with asyncio.timeout(WITHIN_S):
        while [one.status for one in await hall.server.store.streams("talk")] != ["ended"]:  # noqa: ASYNC110 -- nobody is told when the store changes
            await asyncio.sleep(0.01)
    assert len(await hall.server.store.finals("talk")) == 2, "a clean close decodes what came"


async def test_channels_of_a_container_become_lines_of_their_own(hall: Hall) -> None:
    half = len(TALK) // 2
    file = wav(interleaved(TALK[:half] + bytes(half), bytes(half) + TALK[half:]), rate=RATE, channels=2)
    speaker = await hall.say(file, query="multichannel=true")
    assert {final["channel"] for final in speaker.all("final")} == {0, 1}


async def test_samples_are_samples_when_the_client_says_so(hall: Hall) -> None:
    speaker = await hall.say(wav(TALK, rate=RATE), query=f"encoding=pcm_s16le&sample_rate={RATE}")
    assert [warning["code"] for warning in speaker.all("warning")] == ["wav_header"]
    speaker = await hall.join()
    await speaker.ws.send_json({"type": "configure", "encoding": "pcm_s16le", "sample_rate": RATE})
    await speaker.send(wav(TALK, rate=RATE))
    await speaker.ws.send_json({"type": "finish"})
    assert await speaker.end() == 1000
    assert [warning["code"] for warning in speaker.all("warning")] == ["wav_header"]


async def test_who_insists_on_a_container_must_send_one(hall: Hall) -> None:
    speaker = await hall.say(TALK, query="encoding=container")
    assert speaker.ws.close_code == 1003
    assert speaker.all("error")[0]["code"] == "unsupported_media"
    said = await hall.say(encoded(TALK, "MP3", rate=RATE), query="encoding=container")
    assert said.ws.close_code == 1000
    assert len(said.all("final")) == 2


async def test_a_few_bytes_that_are_no_container_are_samples(hall: Hall) -> None:
    speaker = await hall.say(b"RIFF" + bytes(3))
    assert speaker.ws.close_code == 1000
    assert speaker.all("closed")[0]["audio_ms"] == 0


async def test_what_is_no_audio_ends_the_stream_with_its_reason(hall: Hall) -> None:
    speaker = await hall.say(b"fLaC" + bytes(50_000))
    error = speaker.all("error")[0]
    assert (error["code"], error["retryable"], speaker.ws.close_code) == ("bad_media", False, 1007)
    assert [one.status for one in await hall.server.store.streams("talk")] == ["ended"]


async def test_a_dead_decoder_ends_the_connection_and_the_stream_goes_on(hall: Hall) -> None:
    data = webm(TALK)
    wanted = shape(await hall.say(data))
    speaker = await hall.join("cut")
    (driver,) = hall.server.streams._drivers.values()
    # The talk is over in less than the second between two acks: so they come whenever they can.
    progress = driver.machine._progress
    progress._settings = msgspec.structs.replace(progress._settings, ack_every_s=0.0)
    await speaker.send(data[: len(data) * 3 // 4])
    await speaker.until("final")
    while (await speaker.until("ack"))["samples"] < 2 * RATE:
        pass
    cage = await hall.server.app[DECODERS].cage()
    for pid in cage.pids:
        os.kill(pid, signal.SIGKILL)
    error = await speaker.until("error")
    assert (error["code"], error["retryable"]) == ("decoder_lost", True)
    await speaker.end()

    again = await hall.join("cut", f"resume={speaker.seen[0]['resume_token']}")
    assert again.seen[0]["options"]["encoding"] == "container"
    assert again.seen[0]["epoch"] == 2
    assert again.seen[0]["resume_at"] > RATE, "it does not begin at the beginning"
    await again.send(data)
    await again.ws.send_json({"type": "finish"})
    assert await again.end() == 1000
    kept = [one.final for one in await hall.server.store.finals("cut")]
    assert [(f.start // 16, f.stop // 16, f.text) for f in kept] == wanted
    assert [final["segment"] for final in again.all("final")] == [1]


@pytest.mark.parametrize("seed", range(4))
async def test_a_cut_anywhere_stores_each_word_once(hall: Hall, seed: int) -> None:
    data = webm(TALK)
    wanted = shape(await hall.say(data))
    chance = random.Random(seed)
    token, interview = "", f"cut-{seed}"
    for _ in range(3):
        speaker = await hall.join(interview, f"resume={token}" if token else "")
        token = speaker.seen[0]["resume_token"]
        await speaker.send(data[: chance.randrange(len(data))], chance)
        with suppress(TimeoutError):
            async with asyncio.timeout(chance.uniform(0.01, 0.5)):
                while await speaker.next() is not None:
                    pass
        connection = speaker.ws._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.abort()
    last = await hall.join(interview, f"resume={token}")
    await last.send(data)
    await last.ws.send_json({"type": "finish"})
    assert await last.end() == 1000, last.seen[-2:]
    kept = [one.final for one in await hall.server.store.finals(interview)]
    assert [(f.start // 16, f.stop // 16, f.text) for f in kept] == wanted, f"seed {seed}"


async def test_another_recording_cannot_go_on_with_a_stream(hall: Hall) -> None:
    speaker = await hall.join()
    data = webm(TALK)
    await speaker.send(data)
    await speaker.until("final")
    connection = speaker.ws._response.connection
    assert connection is not None
    assert connection.transport is not None
    connection.transport.abort()
    again = await hall.join(query=f"resume={speaker.seen[0]['resume_token']}")
    await again.send(wav(TALK, rate=44_100))
    error = await again.until("error")
    assert error["code"] == "bad_media"
    assert "44100 Hz" in error["message"]


async def test_a_container_faster_than_its_engine_waits_and_loses_nothing(tmp_path: Path) -> None:
    engine = CountingEngine()
    go = asyncio.Event()

    async def gate(final: bool) -> None:
        await go.wait()

    engine.gate = gate
    long = wav(TALK * 14, rate=RATE)
    async with running(tmp_path, engine=engine) as server, aiohttp.ClientSession() as http:
        hall = Hall(server, http)
        speaker = await hall.join()
        sending = asyncio.create_task(speaker.send(long, 60_000))
        degraded = await speaker.until("degraded")
        assert degraded["reason"] == "buffer"
        go.set()
        await sending
        await speaker.ws.send_json({"type": "finish"})
        assert await speaker.end() == 1000
        assert len(speaker.all("final")) == 28
