"""What keeping costs and brings: ``python -m benchmarks.durability [--part resume cost cycles]``.

``resume``  Speakers talk in real time through the client library, and their connections break in mid-utterance.  From
            the break, or from the end of the word where that is later, to the first word that was not there before:
            with the library's pause, and without it (what the server and the protocol take).
``cost``    The same crowd on the durable store and on one that takes finals without keeping them, in turns: the time
            of a final in the store, and what CPU a frame costs more, which is the share of streams a core loses.
``cycles``  Connections that come, speak, break, and come back or not: memory and open files of the server.

The guards, which alone decide the exit code: every word of every speaker is there, once; neither the files a
server has open nor its memory grow with the cycles.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from math import ceil

import aiohttp
import msgspec

from benchmarks import report
from benchmarks.figures import Spread, begin, finish, spread, table
from benchmarks.served import process, speech_file
from benchmarks.sides import PATIENCE, Account, Look, look, side, url
from benchmarks.tape import FRAME_BYTES, FRAME_MS, make_tape
from streamsrv.client import Final, Partial, Ready, Reconnecting, Transcription
from tests.support.speech import silence, voice

GOALS = {"resume_ms": 500.0, "final_p95_ms": 5.0, "streams_lost_share": 0.05}
PARTS = ("resume", "cost", "cycles")
FIRST_BREAK_S, BREAK_STEP_S = 0.9, 0.07
"""Into utterances of ``SPEECH_S``: each break comes a step later than the one before, modulo a second, so that all
parts of a word (half a second) are met."""
SPEECH_S, PAUSE_S = 2.6, 1.0
MANY_CYCLES = 2_000
MOST_KB = 15.0
"""Growth for each cycle that means that something stays: an idle session has 36 kB.  From ``MANY_CYCLES`` on; what the
allocator keeps in store makes up to 4."""
SPARE_FILES = 8
"""Connections to the database and the like, which are opened when they are needed first, and stay."""
WARM_LOOK = 4
"""Which of ten looks at memory growth is counted from: what only beginnings cost is paid by then."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    speakers: int = 4
    breaks: int = 15
    """Of each speaker."""
    sessions: int = 200
    seconds: float = 30.0
    pairs: int = 6
    cycles: int = 3_000


# --- resume ------------------------------------------------------------------------------------------------------


class Talk:
    """One speaker whose line breaks in every utterance."""

    def __init__(self, port: int, number: int) -> None:
        self.pauses_ms: list[float] = []
        self.whole_ms: list[float] = []
        self.broken: list[str] = []
        self._stream = Transcription(url(port), f"resume-{number}")
        self._segments: list[int] = []
        self._broken_at: float | None = None
        self._given: list[float] = []
        """When each frame was given."""
        self._pause_ms = 0.0
        self._seen = (0, 0)
        """Segment and words of the newest partial."""

    async def run(self, breaks: int) -> None:
        async with self._stream:
            reading = asyncio.create_task(self._read())
            for seed in range(breaks):
                audio = voice(SPEECH_S, seed=seed) + silence(PAUSE_S)
                at = round((FIRST_BREAK_S + seed * BREAK_STEP_S % 1.0) * 1000 / FRAME_MS) * FRAME_BYTES
                await self._say(audio[:at])
                self._break()
                await self._say(audio[at:])
            closed = await self._stream.finish()
            await reading
        if self._segments != list(range(breaks)) or closed.finals != breaks:
            self.broken.append(f"{breaks} utterances, finals {self._segments} came, {closed.finals} are stored")
        if len(self.whole_ms) != breaks:
            self.broken.append(f"{breaks} breaks, {len(self.whole_ms)} resumes")

    async def _say(self, audio: bytes) -> None:
        """In real time, whatever the connection does."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for number, at in enumerate(range(0, len(audio), FRAME_BYTES), 1):
            await self._stream.send(audio[at : at + FRAME_BYTES])
            self._given.append(loop.time())
            await asyncio.sleep(begun + number * FRAME_MS / 1000 - loop.time())

    def _break(self) -> None:
        link = self._stream._link
        if link is not None:
            self._broken_at = asyncio.get_running_loop().time()
            link.cut("the benchmark")

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        async for event in self._stream.events():
            match event:
                case Reconnecting(pause_s=pause_s):
                    self._pause_ms = 1000 * pause_s
                case Partial() if self._broken_at is None:
                    self._seen = (event.segment, len(event.words))
                case Partial() if event.words and (event.segment, len(event.words)) > self._seen:
                    self._resumed(event.words[-1].stop_ms, loop.time())
                case Final():
                    self._segments.append(event.segment)
                case Ready() | _:
                    pass

    def _resumed(self, word_ms: int, now: float) -> None:
        """The first word behind a break is shown."""
        broken_at = self._broken_at or now
        since = max(self._given[min(len(self._given), ceil(word_ms / FRAME_MS)) - 1], broken_at)
        self.whole_ms.append(1000 * (now - since))
        self.pauses_ms.append(max(0.0, self._pause_ms - 1000 * (since - broken_at)))
        self._broken_at = None


async def resume(plan: Plan) -> tuple[dict[str, object], list[str]]:
    async with _server("talking") as (port, _):
        talks = [Talk(port, number) for number in range(plan.speakers)]
        await asyncio.gather(*(_later(number * 0.23, talk.run(plan.breaks)) for number, talk in enumerate(talks)))
    whole = [ms for talk in talks for ms in talk.whole_ms]
    beyond = [ms - pause for talk in talks for ms, pause in zip(talk.whole_ms, talk.pauses_ms, strict=True)]
    figures: dict[str, object] = {"with_pause_ms": spread(whole), "without_pause_ms": spread(beyond)}
    return figures, [what for talk in talks for what in talk.broken]


async def _later(seconds: float, work: object) -> None:
    await asyncio.sleep(seconds)
    await work  # type: ignore[misc]


# --- cost --------------------------------------------------------------------------------------------------------


async def cost(plan: Plan) -> tuple[dict[str, object], list[str]]:
    """Durable and forgetful on one core, in turns."""
    cores = sorted(os.sched_getaffinity(0))
    apart = len(cores) > 1
    tape = make_tape(speech_file(), 0.5)
    begin_side = partial(side, tape=tape, sessions=plan.sessions, warm_frames=50, cpu=cores[0] if apart else None)
    os.sched_setaffinity(0, cores[1:] if apart else cores)
    try:
        async with begin_side("null") as durable, begin_side("forgetful") as forgetful:
            for _ in range(plan.pairs):
                for each in (durable, forgetful):
                    await each.paced(plan.seconds / plan.pairs)
            kept, forgot = await durable.account(), await forgetful.account()
    finally:
        os.sched_setaffinity(0, cores)
    return _cost(kept, forgot), [*kept.broken, *forgot.broken]


def _cost(kept: Account, forgot: Account) -> dict[str, object]:
    """A core that has a frame for ``b`` and now for ``a`` serves ``b / a`` of the streams."""
    lost = [1 - b / a for a, b in zip(kept.us_per_frame, forgot.us_per_frame, strict=True)]
    low, high = report.interval(lost)
    return {
        "final_ms": kept.final,
        "us_per_frame": [round(statistics.median(one.us_per_frame), 2) for one in (kept, forgot)],
        "streams_lost_share": round(statistics.median(lost), 4),
        "streams_lost_share_95": [round(low, 4), round(high, 4)],
        "stall_ms": [kept.stall, forgot.stall],
        "late_ms": kept.late,
    }


# --- cycles ------------------------------------------------------------------------------------------------------


async def cycles(plan: Plan) -> tuple[dict[str, object], list[str]]:
    audio = silence(0.1) + voice(0.4)
    looks: list[Look] = []
    async with _server("talking", "--resume-window-s", "0.5") as (_, http):
        before = await look(http)
        for number in range(plan.cycles):
            token = await _cycle(http, f"cycle-{number % 50}", None, audio)
            if number % 2:
                await _cycle(http, f"cycle-{number % 50}", token, audio)
            if number % (plan.cycles // 10) == plan.cycles // 10 - 1:
                await _nobody(http)
                looks.append(await look(http))
    warm, after = looks[WARM_LOOK], looks[-1]
    few = after.files <= before.files + SPARE_FILES
    broken = [] if few else [f"{after.files} files are open, {before.files} were before"]
    grown_kb = (after.rss_kb - warm.rss_kb) / (plan.cycles * (9 - WARM_LOOK) / 10)
    if plan.cycles >= MANY_CYCLES and grown_kb > MOST_KB:
        broken.append(f"memory grew by {grown_kb:.1f} kB for each cycle, more than {MOST_KB:g}")
    figures: dict[str, object] = {
        "cycles": plan.cycles,
        "rss_kb": [before.rss_kb, *(one.rss_kb for one in looks)],
        "files": [before.files, *(one.files for one in looks)],
        "kb_per_cycle_warm": round(grown_kb, 3),
    }
    return figures, broken


async def _nobody(http: aiohttp.ClientSession) -> None:
    """Wait until the server holds no session any more."""
    while True:
        async with http.get("/metrics") as answer:
            if "streamsrv_sessions 0.0" in await answer.text():
                return
        await asyncio.sleep(0.1)


async def _cycle(http: aiohttp.ClientSession, interview: str, token: str | None, audio: bytes) -> str:
    """Connect, speak a little, break without a close frame."""
    query = {} if token is None else {"resume": token}
    async with http.ws_connect(f"/transcription/stream/{interview}", params=query, autoping=False) as ws:
        ready = await ws.receive_json()
        await ws.send_bytes(audio)
        while (await ws.receive_json())["type"] != "speech_started":
            pass
        ws.get_extra_info("socket").shutdown(2)
    return str(ready["resume_token"])


# --- all ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _server(kind: str, *more: str) -> AsyncIterator[tuple[int, aiohttp.ClientSession]]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        asked = ("benchmarks.serving", kind, "--data-dir", folder, *more)
        async with process(*asked) as port, aiohttp.ClientSession(url(port), timeout=PATIENCE) as http:
            yield port, http


def shown(figures: dict[str, dict[str, object]]) -> str:
    """The table for people."""
    lines: list[tuple[str, ...]] = []
    for part, found in figures.items():
        for name, value in found.items():
            told = value
            if isinstance(value, Spread):
                told = f"p50 {value.p50:.2f}  p95 {value.p95:.2f}  p99 {value.p99:.2f}  max {value.max:.2f}"
            elif isinstance(value, list) and value and isinstance(value[0], Spread):
                told = "  ".join(f"p99 {one.p99:.2f}" for one in value)
            lines.append((part, name, str(told)))
    return table(("part", "figure", "value"), lines)


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    usual = Plan()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.durability", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="what is measured")
    for name in ("speakers", "breaks", "sessions", "pairs", "cycles"):
        parser.add_argument(f"--{name}", type=int, default=getattr(usual, name))
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="measured time of each store")
    parser.add_argument("--dry", action="store_true", help="keep no file")
    asked = vars(parser.parse_args(given))
    plan = Plan(**{name: asked[name] for name in msgspec.structs.asdict(usual)})
    measured = begin("durability", given)
    figures: dict[str, dict[str, object]] = {}
    for part in asked["part"]:
        work = {"resume": resume, "cost": cost, "cycles": cycles}[part]
        figures[part], broken = asyncio.run(work(plan))
        measured.broken += broken
    measured.figures = {"plan": msgspec.to_builtins(plan), "goals": GOALS, **msgspec.to_builtins(figures)}
    return finish(measured, "durability", shown(figures), keep=not asked["dry"])


if __name__ == "__main__":
    sys.exit(main())
