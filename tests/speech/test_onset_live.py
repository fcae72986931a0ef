"""Soft words from the first sample on, or after a place where a stream may go on: heard whole, over a real socket."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest
import soundfile

from tests.support.server import running

DIGITS = Path(__file__).parents[1] / "models" / "digits"
SAMPLE = "digits-11.flac"
SOFT = 0.03
PIECE = 3_200


def digits(quiet_s: float) -> bytes:
    """Somebody says digits softly after ``quiet_s`` of silence, from their first sample on; s16le mono."""
    sound = soundfile.read(DIGITS / "samples" / SAMPLE, dtype="float64")[0]
    begins = int(np.argmax(np.abs(sound) > 0.05 * np.abs(sound).max()))
    parts = [np.zeros(round(quiet_s * 16_000)), SOFT * sound[begins:], np.zeros(16_000)]
    return bytes((np.concatenate(parts) * 32_767).astype("<i2").tobytes())


def said() -> str:
    index = msgspec.json.decode((DIGITS / "samples" / "index.json").read_bytes())
    return " ".join(next(sample["words"] for sample in index if sample["file"] == SAMPLE))


async def send(socket: aiohttp.ClientWebSocketResponse, audio: bytes) -> None:
    for at in range(0, len(audio), PIECE):
        await socket.send_bytes(audio[at : at + PIECE])


async def finals(socket: aiohttp.ClientWebSocketResponse) -> list[dict[str, Any]]:
    await socket.send_json({"type": "finish"})
    return [event for event in [message.json() async for message in socket] if event["type"] == "final"]


async def cut(http: aiohttp.ClientSession, url: str, audio: bytes, *, ack: bool) -> str:
    """Send this, with ``ack`` until some of it is acknowledged, and lose the line; what takes the stream up again."""
    async with http.ws_connect(url) as socket:
        token = (await socket.receive_json())["resume_token"]
        await send(socket, audio[:-PIECE])
        await asyncio.sleep(1.0 * ack)  # acknowledgements come once a second, while audio comes
        await send(socket, audio[-PIECE:])
        while ack and (await socket.receive_json())["type"] != "ack":
            pass
        socket.get_extra_info("socket").shutdown(2)
    return str(token)


@pytest.mark.speech
@pytest.mark.slow
@pytest.mark.parametrize("quiet_s", [0.0, 3.0], ids=["first sample", "after a restart point"])
async def test_soft_words_are_heard_whole_also_when_the_line_is_cut_in_the_first(
    tmp_path: Path, quiet_s: float
) -> None:
    pytest.importorskip("faster_whisper")
    from streamsrv.engines.whisper import WhisperEngine, WhisperSettings

    audio = digits(quiet_s)
    async with (
        running(tmp_path, engine=WhisperEngine(WhisperSettings(model=str(DIGITS)))) as here,
        aiohttp.ClientSession() as http,
    ):
        async with http.ws_connect(here.stream("whole")) as socket:
            await send(socket, audio)
            whole = await finals(socket)
        within = round((quiet_s + 0.3) * 16_000) * 2
        token = await cut(http, here.stream("cut"), audio[:within], ack=quiet_s > 0)
        async with http.ws_connect(here.stream("cut", f"resume={token}")) as socket:
            resume_at = (await socket.receive_json())["resume_at"]
            await send(socket, audio[2 * resume_at :])
            again = await finals(socket)
    assert (resume_at > 0) is (quiet_s > 0)
    assert " ".join(final["text"] for final in whole) == said()
    assert whole[0]["start_ms"] == max(0, round(1_000 * quiet_s) - 300)
    assert [(f["start_ms"], f["stop_ms"], f["text"]) for f in again] == [
        (f["start_ms"], f["stop_ms"], f["text"]) for f in whole
    ]
