"""Those inside keep their words when they speak more than they did when they were let in: real sockets, real time.

The engine is fake and of known cost; the policy alone, for two minutes, is in
``tests/runtime/scheduling/test_pace.py``; ``benchmarks.inside`` is the same with Whisper.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from benchmarks.figures import spread
from benchmarks.judging import violations
from benchmarks.listening import Arrival, Heard, converse
from benchmarks.script import Script
from streamsrv.engines.base import Window
from tests.support.server import Running, running
from tests.support.speech import silence, voice
from tests.support.windows import WORD_SAMPLES, ScriptedEngine

A_S, B_S = 0.04, 0.08
"""A batch of B windows takes ``A_S + B_S * B``: about eight speakers."""
MOST = 20
EVERY_S = 0.4
"""Between two newcomers."""
RAMP_S = 9.0
FRAME_MS = 40
RUSH = 2.0
"""Seconds of audio sent per second."""
PARTS = ((6.0, 0.6, 1.0), (5.0, 1.0, RUSH), (5.0, 0.6, 1.0), (15.0, 1.0, RUSH))
"""Normal, a burst, a rest, overload: seconds, share of speech, pace."""
TURN_S = 2.0

pytestmark = pytest.mark.slow


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def costly() -> ScriptedEngine:
    engine = ScriptedEngine()

    def take_time(windows: Sequence[Window]) -> None:
        time.sleep(A_S + B_S * len(windows))

    engine.script = take_time
    return engine


def spoken(number: int, calm_s: float) -> tuple[Script, list[float]]:
    """Audio for the ramp and all parts, and when each frame is due."""
    turn, audio, dues, due = voice(TURN_S, seed=number), b"", [0.0], 0.0
    for seconds, share, pace in ((calm_s, 0.6, 1.0), *PARTS):
        part = b""
        while len(part) < 32_000 * seconds * pace:
            part += turn + silence(max(0.5, TURN_S * (1 - share) / share))
        audio += part
        frames = len(part) // (32 * FRAME_MS)
        dues += [due + frame * FRAME_MS / 1000 / pace for frame in range(1, frames + 1)]
        due = dues[-1]
    count = -(-len(audio) // (32 * FRAME_MS))
    script = Script(name=f"{number}", rate_hz=16_000, samples=audio, plain_ms=0)
    return script, [float(at) for at in np.interp(range(1, count + 1), range(len(dues)), dues)]


async def let_in(
    here: Running, client: aiohttp.ClientSession
) -> tuple[list[asyncio.Task[Heard]], aiohttp.WSServerHandshakeError | None]:
    """Speakers come until one is refused; those inside, and the refusal."""
    talks: list[asyncio.Task[Heard]] = []
    for number in range(MOST):
        try:
            socket = await client.ws_connect(here.stream(f"inside-{number}", "sample_rate=16000"))
        except aiohttp.WSServerHandshakeError as refusal:
            return talks, refusal
        script, dues = spoken(number, RAMP_S - number * EVERY_S)
        talks.append(asyncio.create_task(converse(socket, script, FRAME_MS, dues)))
        await asyncio.sleep(EVERY_S)
    return talks, None


def finals(talks: Sequence[Heard], begin_s: float, end_s: float) -> list[Arrival]:
    """Said in that time after the ramp began."""
    return [
        one
        for number, heard in enumerate(talks)
        for one in heard.arrivals
        if one.message["type"] == "final" and begin_s <= one.at_ms / 1000 + number * EVERY_S < end_s
    ]


async def test_a_burst_and_a_long_rush_cost_partials_and_nothing_else(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    async with running(tmp_path, engine=costly()) as here:
        talks, refusal = await let_in(here, client)
        assert refusal is not None
        assert refusal.status == 503
        assert refusal.headers is not None
        assert int(refusal.headers["Retry-After"]) > 0
        assert 3 <= len(talks) < MOST
        inside = await asyncio.gather(*talks)
    for heard in inside:
        assert list(violations(heard)) == [], "no sample, no final is missing"
        for arrival in heard.arrivals:
            if arrival.message["type"] == "final":
                start, stop = (16 * arrival.message[name] for name in ("start_ms", "stop_ms"))
                words = [f"w{n}" for n in range(-(-start // WORD_SAMPLES), stop // WORD_SAMPLES)]
                assert arrival.message["text"].split() == words, "and no word"
        told = [one.message for one in heard.arrivals if one.message["type"] == "degraded"]
        assert {"active": True, "reason": "load"}.items() <= told[0].items(), "everyone is told"
    normal, overload = (
        spread([float(one.message["latency_ms"]) for one in finals(inside, begin, end)]).p95
        for begin, end in ((RAMP_S, RAMP_S + 6), (RAMP_S + 20, RAMP_S + 31))
    )
    assert 0 < overload <= 2 * normal
