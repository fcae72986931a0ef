"""Many live sessions on one window engine, for a while: what everybody saw, and what the server did meanwhile.

Open loop: each speaker's audio has intended times from the start of the run, at a random phase, and every latency
counts from them.  Percentiles pool all words of all sessions.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec

from benchmarks.figures import Spread, slope, spread
from benchmarks.judging import Judged, judge
from benchmarks.listening import play
from benchmarks.script import Script
from benchmarks.served import process
from benchmarks.sides import Look, look, url
from benchmarks.stalls import LongStall
from tests.models import costly, sized, tone

TONES = {
    "tone": ("tone at tiny.en's size", tone.TINY),
    "small-tone": ("a tone model of 4 MB", tone.SMALL),
    "tone-small": ("tone at small's size", sized.SIZES["small"]),
    "tone-turbo": ("tone at turbo's size", sized.SIZES["turbo"]),
}
"""Models that hear tones, every word of them; made on the spot."""
MADE = {name: title for name, (title, _) in TONES.items()} | {"digits-tiny-cost": "digits at tiny.en's cost"}
"""All that are made on the spot."""
FRAME_MS = 40
"""Audio in one message."""
PHASE_S = 1.0
"""Speakers begin at random within so many seconds: longer than the pause between two partials."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    sessions: int
    refused: int
    """Speakers that were not let in."""
    heard: Judged
    stall: Spread
    """How late the server's event loop came back to an alarm, ms."""
    long_stalls: tuple[LongStall, ...] = ()
    """Where the time of the long ones went."""
    cores: float
    """CPU seconds of the server per second."""
    others: float
    """CPU seconds per second of everything on the machine that is neither the server nor the speakers: noise."""
    stolen_ms: float
    """CPU time that other machines took of this one's cores: each may have stopped a loop for that long."""
    rss_mb: float
    degraded: int
    """Times somebody was told of trouble."""

    @property
    def commit(self) -> Spread:
        return spread(self.heard.commit)

    @property
    def growth(self) -> float:
        """Seconds of latency gained in a second of audio."""
        return slope([(end / 1000, ms / 1000) for end, ms in zip(self.heard.ends, self.heard.commit, strict=True)])


@asynccontextmanager
async def server(model: Path, *chosen: str, cpu: int | None = None) -> AsyncIterator[int]:
    """A server on the engine ``whisper``, loaded; its port.

    Args:
        model: folder.
        chosen: settings, as ``whisper.window_floor_s=5``.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        sets = [f"--set={one}" for one in (f"engine.model={model}", "engine.name=whisper", *chosen)]
        async with process("benchmarks.serving", "whisper", "--data-dir", folder, *sets, cpu=cpu) as port:
            yield port


@asynccontextmanager
async def model_folder(wanted: str) -> AsyncIterator[Path]:
    """One of ``MADE``, or a folder."""
    if wanted not in MADE:
        yield Path(wanted)
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder = Path(place) / wanted
        if wanted in TONES:
            yield await asyncio.to_thread(tone.make, folder, size=TONES[wanted][1], quantization="int8")
        else:
            yield await asyncio.to_thread(costly.make, folder)


async def trial(
    port: int, scripts: Sequence[Script], *, seed: int = 1, frame_ms: int = FRAME_MS, pace: float = 1.0
) -> Trial:
    """Everybody speaks a script of his own at once."""
    chance = random.Random(seed)
    heard, refused, told = Judged(), 0, 0
    async with _crowd() as http, aiohttp.ClientSession(url(port)) as aside:
        before, began, busy = await look(aside), asyncio.get_running_loop().time(), _busy_s() - time.process_time()
        stolen = _stolen_s()

        async def speak(number: int, script: Script) -> None:
            nonlocal refused, told
            place = f"ws://127.0.0.1:{port}/transcription/stream/trial-{seed}-{number}"
            try:
                said = await play(http, place, script, frame_ms, after_s=chance.random() * PHASE_S, pace=pace)
            except aiohttp.WSServerHandshakeError:
                refused += 1
                return
            told += sum(arrival.message["type"] == "degraded" for arrival in said.arrivals)
            judged = judge(said)
            judged.broken = [what for what in judged.broken if what not in script.expected]
            heard.add(judged)

        await asyncio.gather(*(speak(number, script) for number, script in enumerate(scripts)))
        after, took = await look(aside), asyncio.get_running_loop().time() - began
        served = after.cpu_s - before.cpu_s
        busy = _busy_s() - time.process_time() - busy
        stolen = _stolen_s() - stolen
    return Trial(
        sessions=len(scripts),
        refused=refused,
        heard=heard,
        stall=spread(after.stalls_ms),
        long_stalls=tuple(after.long_stalls),
        cores=round(served / took, 2),
        others=round(max(0.0, busy - served) / took, 2),
        stolen_ms=round(1000 * stolen),
        rss_mb=round(_mb(after), 1),
        degraded=told,
    )


def _crowd() -> aiohttp.ClientSession:
    """For any number of speakers; the usual one lets a hundred out at once."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


def _busy_s() -> float:
    """CPU seconds that all cores together were busy since the machine was started."""
    user, nice, system, _idle, _waiting, interrupts, soft, _stolen = _seconds()
    return user + nice + system + interrupts + soft


def _stolen_s() -> float:
    return _seconds()[7]


def _seconds() -> list[float]:
    """Of all cores together, since the machine was started, in the order of proc(5)."""
    return [int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]]


def _mb(seen: Look) -> float:
    return seen.rss_kb / 1024
