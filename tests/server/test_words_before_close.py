"""Exactly one error is said before an abnormal close, whoever finds the fault; and the numbers move."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.server import Running, running
from tests.support.speech import silence


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as one:
        yield one


@pytest.mark.parametrize(
    ("message", "close", "code"),
    [
        ("[1]", 1007, "bad_message"),
        ('{"type":5}', 1007, "bad_message"),
        ("x" * 20_000, 1009, "message_too_big"),
        (bytes(1_048_577), 1009, "message_too_big"),
        ('{"type":"configure","sample_rate":1}', 1008, "bad_request"),
    ],
    ids=["no object", "no type", "long text", "long audio", "bad option"],
)
async def test_one_error_precedes_the_close(server: Running, message: str | bytes, close: int, code: str) -> None:
    async with aiohttp.ClientSession() as http, http.ws_connect(server.stream()) as ws:
        await (ws.send_str(message) if isinstance(message, str) else ws.send_bytes(message))
        said = [event.json() async for event in ws]
    assert [event["code"] for event in said if event["type"] == "error"] == [code]
    assert ws.close_code == close


async def test_audio_is_counted_when_its_session_is_over(server: Running) -> None:
    async with aiohttp.ClientSession() as http, http.ws_connect(server.stream()) as ws:
        await ws.send_bytes(silence(3.0))
        await ws.send_json({"type": "finish"})
        async for _ in ws:
            pass
        async with http.get(f"{server.http}/metrics") as answer:
            numbers = await answer.text()
    assert "streamsrv_audio_seconds_total 3.0\n" in numbers
