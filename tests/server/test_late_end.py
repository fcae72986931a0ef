"""A connection that dies between ``finish`` and ``closed``: who comes back learns how the stream ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from streamsrv import events
from streamsrv.client import Final, Options, Transcription
from streamsrv.events import AnyEvent
from streamsrv.server.speaker import Speaker
from tests.support.recordings import interleaved
from tests.support.server import running
from tests.support.speech import silence, voice


def spoken(rate_hz: int) -> bytes:
    return silence(0.5, rate=rate_hz) + voice(1.2, rate=rate_hz) + silence(0.9, rate=rate_hz)


@pytest.fixture
def mute(monkeypatch: pytest.MonkeyPatch) -> list[AnyEvent]:
    """The line breaks when the server says the last final, or ``closed``; what was not said any more."""
    unsaid: list[AnyEvent] = []
    put = Speaker.put

    def break_off(self: Speaker, event: AnyEvent) -> None:
        if isinstance(event, events.Final | events.Closed) and not (unsaid and isinstance(event, events.Ready)):
            unsaid.append(event)
            self.cut("test")
            return
        put(self, event)

    monkeypatch.setattr(Speaker, "put", break_off)
    return unsaid


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
async def test_the_client_library_reports_a_normal_end(tmp_path: Path, mute: list[AnyEvent], rate_hz: int) -> None:
    audio = spoken(rate_hz)
    left, right = audio, silence(0.2, rate=rate_hz) + audio
    size = min(len(left), len(right))
    options = Options(sample_rate=rate_hz, channels=2, multichannel=True)
    async with running(tmp_path) as server:
        async with Transcription(server.http, "late", options) as stream:
            finals: list[Final] = []

            async def read() -> None:
                finals.extend([event async for event in stream.events() if isinstance(event, Final)])

            reading = asyncio.create_task(read())
            await stream.send(interleaved(left[:size], right[:size]))
            closed = await stream.finish()
            await reading
        assert mute, "the line did break"
        stored = [(kept.final.channel, kept.final.text) for kept in await server.store.finals("late")]
        assert sorted((final.channel, final.text) for final in finals) == sorted(stored)
        assert len(stored) == closed.finals == 2
        assert closed.audio_ms == pytest.approx(size * 1000 / (rate_hz * 2), abs=1)


async def test_the_answer_is_for_who_has_the_token_alone(tmp_path: Path) -> None:
    async with running(tmp_path) as server, aiohttp.ClientSession() as http:
        async with http.ws_connect(server.stream("late")) as ws:
            token = (await ws.receive_json())["resume_token"]
            await ws.send_bytes(spoken(16_000))
            await ws.send_json({"type": "finish"})
            async for _ in ws:
                pass
        path = server.stream("late").replace("ws", "http", 1)
        async with http.get(path, params={"resume": token + "x"}, headers=UPGRADE) as refused:
            assert (refused.status, set(await refused.json())) == (403, {"error"})
        async with http.get(path, params={"resume": token}, headers=UPGRADE) as refused:
            assert refused.status == 410
            ended = (await refused.json())["ended"]
        assert (ended["samples"], ended["audio_ms"], ended["count"]) == (len(spoken(16_000)) // 2, 2_600, 1)
        assert [final["text"] for final in ended["finals"]] == ["w0 w1 w2 w3"]


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
