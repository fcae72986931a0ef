"""``streamsrv stream`` as a process of its own, against a scripted server on a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.client.scripted import Call, refuse, serving, talk, until

ROOT = Path(__file__).parents[2]
SAMPLES = np.random.default_rng(9).integers(-9_000, 9_000, 96_000, dtype=np.int16)
AUDIO = SAMPLES.astype("<i2").tobytes()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "recording.flac"
    soundfile.write(path, SAMPLES, 16_000)
    return path


async def started(*words: object, stdin: int = DEVNULL) -> Process:
    command = [sys.executable, "-m", "streamsrv", "stream", *map(str, words)]
    return await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=stdin, stdout=PIPE, stderr=PIPE)


async def ended(process: Process, data: bytes | None = None) -> tuple[int | None, str, str]:
    out, err = await process.communicate(data)
    return process.returncode, out.decode(), err.decode()


async def test_a_file_goes_up_words_come_down_and_a_cut_is_survived(recording: Path) -> None:
    async def first(call: Call) -> None:
        await call.ready(engine={"name": "sphinx", "note": "US English only"})
        await call.say("partial", channel=0, segment=0, text="and so", stable_chars=3)
        await call.hear(100_000)
        await call.final(0, "and so my")
        await call.say("ack", samples=40_000)
        call.cut()

    async def second(call: Call) -> None:
        await call.ready(resume_at=32_000, finals=[{"channel": 0, "segment": 0, "text": "and so my"}])
        await call.final(1, "")
        await call.final(2, "fellow americans")
        await call.end(finals=3)

    async with serving(talk(first), talk(second)) as server:
        process = await started(recording, "--url", server.url, "--interview", "talk-1", "--speaker", "anna")
        code, out, err = await ended(process)
        assert (bytes(server.calls[0].audio)[:64_000] + bytes(server.calls[1].audio)) == AUDIO
        query = dict(server.requests[0].query)
    assert (code, out) == (0, "and so my\nfellow americans\n")
    assert query == {"speaker": "anna"}
    lines = err.splitlines()
    assert lines[0] == "recording.flac (6.0 s), 16000 Hz, 1 channel as talk-1; engine sphinx (US English only)"
    assert lines[1].startswith("connection lost (the connection broke), next attempt in 0.")
    assert lines[2] == "connected again, nothing is lost"
    web = server.url.replace("ws", "http")
    assert lines[3] == f"1.2 s of audio, 3 finals; read again: {web}/transcription/talk-1"


async def test_json_is_one_event_a_line(recording: Path) -> None:
    async def script(call: Call) -> None:
        await call.ready()
        await call.say("partial", channel=0, segment=0, text="ä", stable_chars=1)
        await call.final(0, "ä")
        await call.end()

    async with serving(talk(script)) as server:
        code, out, _ = await ended(await started(recording, "--url", server.url, "--json"))
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [event["type"] for event in events] == ["ready", "partial", "final", "closed"]
    assert events[2]["text"] == "ä"


async def test_standard_input_is_raw_samples() -> None:
    async def script(call: Call) -> None:
        await call.ready()
        await call.end()

    async with serving(talk(script)) as server:
        process = await started("-", "--rate", 8_000, "--channels", 2, "--url", server.url, stdin=PIPE)
        code, _, _ = await ended(process, AUDIO)
        assert bytes(server.calls[0].audio) == AUDIO
        assert dict(server.requests[0].query) == {"sample_rate": "8000", "channels": "2"}
    assert code == 0


async def test_the_first_interrupt_finishes_and_shows_the_rest() -> None:
    async def script(call: Call) -> None:
        await call.ready()
        await call.hear(3_200)
        process.send_signal(signal.SIGINT)
        assert await call.command() == "finish"
        await call.final(0, "the rest")
        await call.say("closed", cause="finish", audio_ms=100, finals=1)
        await call.ws.close(code=1000)

    async with serving(talk(script)) as server:
        process = await started("-", "--url", server.url, stdin=PIPE)
        assert process.stdin is not None
        process.stdin.write(AUDIO[:3_200])
        assert process.stdout is not None
        assert await process.stdout.read() == b"the rest\n"
        assert await process.wait() == 0


async def test_the_second_interrupt_leaves_at_once() -> None:
    async def script(call: Call) -> None:
        await call.ready()
        await call.hear(3_200)
        process.send_signal(signal.SIGINT)
        assert await call.command() == "finish"
        process.send_signal(signal.SIGINT)
        await call.gone()

    async with serving(talk(script)) as server:
        process = await started("-", "--url", server.url, stdin=PIPE)
        assert process.stdin is not None
        process.stdin.write(AUDIO[:3_200])
        assert process.stderr is not None
        err = (await process.stderr.read()).decode()
        assert await process.wait() == 1
        await until(lambda: server.calls[0].left_with is not None)
        assert server.calls[0].left_with == 1000
    assert "left before the end" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nowhere.wav"], 3, "nowhere.wav cannot be read"),
        (["FILE", "--url", "gopher://x"], 2, "URL is not understood"),
        (["FILE", "--url", "ws://127.0.0.1:9"], 3, "connection refused"),
        (["FILE", "--api-key-file", "/nowhere/key"], 3, "API key"),
    ],
)
async def test_what_cannot_begin_is_told(recording: Path, words: list[str], code: int, said: str) -> None:
    process = await started(*(recording if word == "FILE" else word for word in words))
    left, out, err = await ended(process)
    assert (left, out) == (code, "")
    error, remedy = err.splitlines()
    assert error.startswith("error: ")
    assert said in error
    assert remedy.startswith("remedy: ")


async def test_a_refusal_at_the_door_is_3_with_the_servers_hint(recording: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("key-12345\n")
    async with serving(refuse(401, "unauthorized")) as server:
        process = await started(recording, "--url", server.url, "--api-key-file", key)
        code, _, err = await ended(process)
        assert server.requests[0].headers["Authorization"] == "Bearer key-12345"
    assert (code, err) == (3, "error: no: unauthorized\nremedy: do otherwise\n")


async def test_a_stream_that_was_taken_over_is_1(recording: Path) -> None:
    async def script(call: Call) -> None:
        await call.ready()
        await call.final(0, "one")
        await call.say("error", code="superseded", message="a newer connection has it", hint="close that one")
        await call.ws.close(code=4409)

    async with serving(talk(script)) as server:
        code, out, err = await ended(await started(recording, "--url", server.url))
    assert (code, out) == (1, "one\n")
    assert "error: a newer connection has it\nremedy: close that one\n" in err


async def test_a_reader_that_leaves_is_no_traceback(recording: Path) -> None:
    async def script(call: Call) -> None:
        await call.ready()
        for n in range(200):
            await call.final(n, "x" * 2_000)
        await call.gone()

    async with serving(talk(script)) as server:
        reading, writing = os.pipe()
        os.close(reading)
        command = [sys.executable, "-m", "streamsrv", "stream", str(recording), "--url", server.url]
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=DEVNULL, stdout=writing, stderr=PIPE)
        os.close(writing)
        code, _, err = await ended_without_output(process)
    assert code == 1
    assert "Traceback" not in err


async def ended_without_output(process: Process) -> tuple[int | None, None, str]:
    _, err = await process.communicate()
    return process.returncode, None, err.decode()
