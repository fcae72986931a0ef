"""Whether live sessions on Whisper keep their memory: ``python -m benchmarks.load --engine whisper --soak MINUTES``.

Speakers talk for minutes on end; the server's resident memory is read twice a second, after its allocator gave back
what it kept in store.  What a session costs is what the server has more at the worst moment than before anybody came.
Its slope is a line through the last two thirds, of the lowest reading in each five seconds: batches under way come and
go, and are megabytes.  A small model does: what it computes is freed after each batch whatever its size.

Guards, which alone decide the exit code: those of every session.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from benchmarks import plot
from benchmarks.figures import begin, finish, slope
from benchmarks.sides import look, url
from benchmarks.spoken import tones
from benchmarks.trials import Trial, model_folder, server, trial

EVERY_S: Final = 5.0
READINGS: Final = 10
"""In that time."""
SESSIONS: Final = 24
SHARE: Final = 0.6
WARM_S: Final = 480.0
WARM_PACE: Final = 8.0
"""As many speakers before anything is counted, faster than people: a server that has been up for a while, whose caches
are full."""
FLOOR_S: Final = 5
GOALS: Final = {"mb_per_session": 2.5, "kb_per_session_and_minute": 1.0}


class Soaked(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    empty_mb: float
    """Before the speakers came, after others had been there."""
    at_s: list[float]
    resident_mb: list[float]
    """The lowest readings."""
    highest_mb: float
    run: Trial

    @property
    def mb_per_session(self) -> float:
        """At the worst moment."""
        return (self.highest_mb - self.empty_mb) / self.run.sessions

    @property
    def slope_kb(self) -> float:
        """Growth per session and minute, kB, over the last two thirds."""
        return slope(self._points) / self.run.sessions

    @property
    def doubt_kb(self) -> float:
        """Standard error of ``slope_kb``, if readings were independent."""
        points, each = self._points, slope(self._points)
        if len(points) < 2:
            return 0.0
        middle = statistics.fmean(at for at, _ in points)
        rest = [kb - each * (at - middle) for at, kb in points]
        apart = sum((at - middle) ** 2 for at, _ in points)
        return math.sqrt(statistics.pvariance(rest) / apart * len(rest) / max(1, len(rest) - 2)) / self.run.sessions

    @property
    def _points(self) -> list[tuple[float, float]]:
        """Minutes and kB."""
        points = [(at / 60, 1024 * mb) for at, mb in zip(self.at_s, self.resident_mb, strict=True)]
        return points[len(points) // 3 :]


async def measure(minutes: float, sessions: int) -> Soaked:
    async with model_folder("small-tone") as model, server(model, f"whisper.window_floor_s={FLOOR_S}") as port:
        await trial(port, [tones(n, WARM_S, share=SHARE) for n in range(sessions)], seed=1, pace=WARM_PACE)
        async with aiohttp.ClientSession(url(port)) as http:
            empty_mb = await _resident_mb(http)
            at_s: list[float] = []
            resident_mb: list[float] = []
            highest_mb = [empty_mb]
            scripts = [tones(100 + n, 60 * minutes, share=SHARE) for n in range(sessions)]
            watching = asyncio.create_task(_watch(http, at_s, resident_mb, highest_mb))
            run = await trial(port, scripts, seed=2)
            watching.cancel()
    return Soaked(empty_mb=empty_mb, at_s=at_s, resident_mb=resident_mb, highest_mb=max(highest_mb), run=run)


async def _watch(
    http: aiohttp.ClientSession, at_s: list[float], lowest_mb: list[float], highest_mb: list[float]
) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while True:
        readings = []
        for _ in range(READINGS):
            await asyncio.sleep(EVERY_S / READINGS)
            readings.append(round(await _resident_mb(http), 2))
        lowest_mb.append(min(readings))
        highest_mb.append(max(readings))
        at_s.append(round(loop.time() - begun, 1))


async def _resident_mb(http: aiohttp.ClientSession) -> float:
    return (await look(http, trim=True)).rss_kb / 1024


def main(arguments: Sequence[str]) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load --engine whisper --soak", description=__doc__)
    parser.add_argument("--engine", choices=("whisper",))
    parser.add_argument("--soak", type=float, metavar="MINUTES", required=True)
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    parser.add_argument("--dry", action="store_true", help="keep no file")
    asked = parser.parse_args(arguments)
    measured = begin("load", arguments)
    soaked = asyncio.run(measure(asked.soak, asked.sessions))
    measured.broken = list(soaked.run.heard.broken)
    measured.figures = {
        "goals": GOALS,
        "sessions": asked.sessions,
        "minutes": asked.soak,
        "mb_per_session": round(soaked.mb_per_session, 3),
        "kb_per_session_and_minute": round(soaked.slope_kb, 3),
        "standard_error_kb": round(soaked.doubt_kb, 3),
        "empty_mb": round(soaked.empty_mb, 2),
        "highest_mb": soaked.highest_mb,
        "resident_mb": soaked.resident_mb,
        "words": soaked.run.heard.words,
        "words_wrong": soaked.run.heard.truth_errors,
    }
    if not asked.dry:
        drawn(plot.place("soak-whisper", measured.date), soaked)
    told = (
        f"{asked.sessions} sessions for {asked.soak:g} minutes: {soaked.mb_per_session:.2f} MB a session at most "
        f"(goal {GOALS['mb_per_session']}), slope {soaked.slope_kb:.2f} +- {soaked.doubt_kb:.2f} kB per session and "
        f"minute (goal {GOALS['kb_per_session_and_minute']:g}); {soaked.run.heard.words} words, "
        f"{soaked.run.heard.truth_errors} wrong"
    )
    return finish(measured, "soak-whisper", told, keep=not asked.dry)


def drawn(path: Path, soaked: Soaked) -> Path:
    """Resident memory over time."""
    line = plot.Line(name="resident", x=[at / 60 for at in soaked.at_s], y=soaked.resident_mb)
    title = f"Memory of the server, {soaked.run.sessions} live sessions on Whisper"
    limits = {"before they came": soaked.empty_mb}
    return plot.lines(path, [line], title=title, x="minutes", y="MB", limits=limits, from_zero=False)
