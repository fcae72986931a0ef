"""The wall clock jumps while people speak (row 65): the audio's own time goes on, and nothing waits for an hour.

``tests/house`` holds the list of who reads the wall clock at all; ``test_runs`` lets a server's clock stay wrong.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from streamsrv.runtime.settings import SessionSettings
from streamsrv.settings import ServerSettings
from tests.adversity.arena import Talker, arena
from tests.server.test_lifecycle import TOLD
from tests.support.speech import silence, voice
from tests.support.watching import cut_line

SPEECH, PAUSE = voice(1.2), silence(0.8)
UTTERANCE = SPEECH + PAUSE
HEARD_BYTES = 9_600
"""Of a pause: 0.3 s, so that the speech before is heard to its end, and nobody knows yet that it has ended."""
HOUR_S = 3_600
MOST_MS = 60_000
"""More than anything here takes, and far less than a jump."""
KEY = "a-key-of-the-tests"


class WallClock:
    """What this process takes for the time of day."""

    def __init__(self) -> None:
        self.wrong_s = 0
        real, real_ns = time.time, time.time_ns
        self.time = lambda: real() + self.wrong_s
        self.time_ns = lambda: real_ns() + self.wrong_s * 10**9


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    clock = WallClock()
    monkeypatch.setattr(time, "time", clock.time)
    monkeypatch.setattr(time, "time_ns", clock.time_ns)
    return clock


JUMPS = pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S, -(10**6) * HOUR_S], ids=["on", "back", "before 1970"])


@JUMPS
async def test_row_65_a_clock_that_jumps_loses_and_disorders_nothing(
    tmp_path: Path, wall: WallClock, jump_s: int
) -> None:
    async with arena(tmp_path) as ring:
        talker = await ring.join("raw")
        await talker.utter()
        viewer = Talker(await ring.http.ws_connect(ring.server.stream("raw", "role=viewer")))
        await talker.send(SPEECH + PAUSE[:HEARD_BYTES])
        await talker.until("partial", segment=1)
        wall.wrong_s = jump_s
        await talker.send(PAUSE[HEARD_BYTES:])
        await talker.until("final", segment=1)
        token = talker.seen[0]["resume_token"]
        again = await ring.join("raw", f"resume={token}")
        ready = again.seen[0]
        await again.send((UTTERANCE * 3)[ready["resume_at"] * 2 :])
        assert await again.finish() == 1000
        assert await ring.finals() == TOLD
        for segment in range(3):
            await viewer.until("final", segment=segment)
        await viewer.ws.close()
        _measured_well(talker, again, viewer)
        transcript = await _transcript(ring.http, ring.server.http)
        assert [segment["segment"] for segment in transcript["segments"]] == [0, 1, 2]
        second = await ring.join("raw")
        await second.utter()
        assert await second.finish() == 1000
        streams = await ring.server.store.streams("raw")
        assert [stream.order for stream in streams] == [1, 2]
        assert len({stream.id for stream in streams}) == 2


def _measured_well(*talkers: Talker) -> None:
    for talker in talkers:
        assert all(0 <= final["latency_ms"] < MOST_MS for final in talker.all("final"))
        assert all(0 <= partial["lag_ms"] < MOST_MS for partial in talker.all("partial"))


@JUMPS
async def test_row_65_who_is_silent_or_gone_is_waited_for_as_long_as_ever(
    tmp_path: Path, wall: WallClock, jump_s: int
) -> None:
    async with arena(tmp_path, session=SessionSettings(resume_window_s=0.3, idle_timeout_s=1), bystander=False) as ring:
        cut, silent = await ring.join("raw"), await ring.join("silent")
        await cut.utter()
        cut_line(cut.ws)
        wall.wrong_s = jump_s
        await ring.ended("raw")
        assert await silent.end() == 4408
        assert await ring.finals() == TOLD[:1]
        await ring.ended("silent")


@JUMPS
async def test_row_65_a_minute_of_beginnings_is_a_minute(tmp_path: Path, wall: WallClock, jump_s: int) -> None:
    server = ServerSettings(api_keys=(KEY,), max_starts_per_minute_per_key=1)
    opens = {"Authorization": f"Bearer {KEY}"}
    async with arena(tmp_path, server=server, bystander=False) as ring:
        talker = await ring.join("raw", **opens)
        wall.wrong_s = jump_s
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await ring.join("raw", **opens)
        assert refused.value.status == 429
        assert refused.value.headers is not None
        assert 0 < int(refused.value.headers["Retry-After"]) <= 60
        assert await talker.finish() == 1000


async def _transcript(http: aiohttp.ClientSession, base: str) -> dict[str, Any]:
    async with http.get(f"{base}/transcription/raw") as answer:
        body: dict[str, Any] = await answer.json()
        return body
