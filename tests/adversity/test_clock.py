"""The wall clock jumps while people speak (row 65): the audio's own time goes on, and nothing waits for an hour."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.adversity.arena import Talker, arena
from tests.server.test_lifecycle import TOLD
from tests.support.speech import silence, voice

UTTERANCE = voice(1.2) + silence(0.8)
HOUR_NS = 3_600 * 10**9


@pytest.mark.parametrize("jump", [HOUR_NS, -HOUR_NS, -(10**6) * HOUR_NS], ids=["on", "back", "before 1970"])
async def test_row_65_a_clock_that_jumps_loses_and_disorders_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    offset = 0
    real, real_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + offset)
    monkeypatch.setattr(time, "time", lambda: real() + offset / 10**9)
    async with arena(tmp_path) as ring:
        talker = await ring.join("raw")
        await talker.utter()
        viewer = Talker(await ring.http.ws_connect(ring.server.stream("raw", "role=viewer")))
        offset = jump
        await talker.utter()
        token = talker.seen[0]["resume_token"]
        again = await ring.join("raw", f"resume={token}")
        ready = again.seen[0]
        await again.send((UTTERANCE * 3)[ready["resume_at"] * 2 :])
        assert await again.finish() == 1000
        assert await ring.finals() == TOLD
        for segment in range(3):
            await viewer.until("final", segment=segment)
        await viewer.ws.close()
        transcript = await _transcript(ring.http, ring.server.http)
        assert [segment["segment"] for segment in transcript["segments"]] == [0, 1, 2]
        second = await ring.join("raw")
        await second.utter()
        assert await second.finish() == 1000
        streams = await ring.server.store.streams("raw")
        assert [stream.order for stream in streams] == [1, 2]
        assert len({stream.id for stream in streams}) == 2


async def _transcript(http: aiohttp.ClientSession, base: str) -> dict[str, Any]:
    async with http.get(f"{base}/transcription/raw") as answer:
        body: dict[str, Any] = await answer.json()
        return body
