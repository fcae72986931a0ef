"""One side of the load benchmark: a server process, the crowd on it, and windows of measured time."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, TypeAlias

import aiohttp
import msgspec

from benchmarks import crowd
from benchmarks.figures import Spread, spread
from benchmarks.served import process
from benchmarks.stalls import LongStall
from benchmarks.tape import FRAME_MS

Kind: TypeAlias = Literal["null", "talking", "forgetful", "bare"]
FRAMES_PER_S = 1000 // FRAME_MS
RAMP_FRAMES = 48
"""The speakers of a crowd begin one after the other over so many frames, 0.96 s: what a session does once a second is
then spread over the second, as it is when people come at times of their own."""
SETTLE_FRAMES = 10
"""Frames before each window that are not counted."""
FIRST = 5
"""Speakers who come and go before the others, so that what only the first sessions cost is not counted."""
PATIENCE = aiohttp.ClientTimeout(total=60)


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What a measured process tells about itself."""

    cpu_s: float
    frames: int
    rss_kb: int
    files: int
    """Open ones."""
    stalls_ms: list[float]
    long_stalls: list[LongStall]
    finals_ms: list[float]
    """Times the store took for a final."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured in one stretch of time."""

    us_per_frame: float
    core_share: float
    """CPU seconds a second."""
    stalls_ms: list[float]
    """How late the server's loop came back to an alarm."""
    late_ms: list[float]
    """How late the crowd itself was."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One side when everybody has left."""

    kind: Kind
    us_per_frame: list[float]
    """Window by window."""
    core_share: float
    stall: Spread
    final: Spread
    """Time the store took for a final, ms."""
    late: Spread
    idle_kb: float
    """Resident kB that a connected session which sends nothing added."""
    active_kb: float
    """The same at the end of the measured time."""
    speech_share: float
    """Share of the frames inside segments."""
    said: dict[str, int]
    """Messages that came back, by type."""
    broken: list[str]
    """What the guards found."""


class Side:
    """A server and its crowd.  Idle between windows, so that the other side has the core.

    Args:
        kind: of server.
        http: asks the server about itself.
        speakers: all that ever joined, those who left included.
        here: those who are here.
        empty_kb, idle_kb: the server's memory before they came, and when they had.
    """

    def __init__(
        self,
        kind: Kind,
        http: aiohttp.ClientSession,
        speakers: list[crowd.Speaker],
        here: list[crowd.Speaker],
        empty_kb: int,
        idle_kb: int,
    ) -> None:
        self._kind = kind
        self._http = http
        self._speakers = speakers
        self._here = here
        self._empty_kb, self._idle_kb = empty_kb, idle_kb
        self._windows: list[Window] = []
        self._stalls_ms: list[float] = []
        self._finals_ms: list[float] = []

    async def paced(self, seconds: float) -> Window:
        """Measure the crowd in real time."""
        await crowd.pace(self._here, SETTLE_FRAMES)
        return await self._measured(lambda: crowd.pace(self._here, round(seconds * FRAMES_PER_S)))

    async def flooded(self, frames: int) -> Window:
        """Measure so many frames of each speaker, as fast as they are taken."""
        return await self._measured(lambda: self._flood(frames))

    async def _flood(self, frames: int) -> list[float]:
        await crowd.flood(self._here, frames)
        used, before = (await self._look()).cpu_s, 0.0
        while used - before > 0.02:  # the kernel still holds some of what was poured
            await asyncio.sleep(0.2)
            used, before = (await self._look()).cpu_s, used
        return []

    async def _measured(self, speak: Callable[[], Awaitable[list[float]]]) -> Window:
        sent = self._sent()
        before, began = await self._look(), asyncio.get_running_loop().time()
        self._stalls_ms.clear()
        late_ms = await speak()
        after, ended = await self._look(), asyncio.get_running_loop().time()
        used_s = after.cpu_s - before.cpu_s
        window = Window(
            us_per_frame=round(1e6 * used_s / max(1, self._sent() - sent), 2),
            core_share=used_s / (ended - began),
            stalls_ms=list(self._stalls_ms),
            late_ms=late_ms,
        )
        self._windows.append(window)
        return window

    async def _look(self) -> Look:
        seen = await look(self._http)
        self._stalls_ms += seen.stalls_ms
        self._finals_ms += seen.finals_ms
        return seen

    def _sent(self) -> int:
        return sum(speaker.sent for speaker in self._here)

    async def account(self) -> Account:
        """Everybody finishes; what came of it."""
        active_kb = (await look(self._http)).rss_kb
        await crowd.finish(self._here)
        said: Counter[str] = Counter()
        for speaker in self._speakers:
            said.update(speaker.said)
        spoken = sum(speaker.speech_frames for speaker in self._speakers)
        return Account(
            kind=self._kind,
            us_per_frame=[window.us_per_frame for window in self._windows],
            core_share=round(statistics.median(window.core_share for window in self._windows), 3),
            stall=spread([stall for window in self._windows for stall in window.stalls_ms]),
            final=spread(self._finals_ms),
            late=spread([late for window in self._windows for late in window.late_ms]),
            idle_kb=round((self._idle_kb - self._empty_kb) / len(self._here), 1),
            active_kb=round((active_kb - self._empty_kb) / len(self._here), 1),
            speech_share=round(spoken / max(1, sum(speaker.sent for speaker in self._speakers)), 3),
            said=dict(said),
            broken=[what for speaker in self._speakers for what in speaker.broken],
        )


@asynccontextmanager
async def side(kind: Kind, tape: bytes, *, sessions: int, warm_frames: int, cpu: int | None) -> AsyncIterator[Side]:
    """Start a server and bring the crowd in; at the end the process is stopped.

    Args:
        tape: what is said.
        warm_frames: everybody sends so many before anything is measured.
        cpu: the one core the server runs on.
    """
    messages, checked = crowd.framed_tape(tape), kind != "bare"
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        tape_file = Path(folder) / "tape"
        tape_file.write_bytes(tape)
        asked = ("benchmarks.serving", kind, "--data-dir", folder, "--tape", str(tape_file))
        async with process(*asked, cpu=cpu) as port, aiohttp.ClientSession(url(port), timeout=PATIENCE) as http:
            first = await crowd.gather(port, messages, FIRST, checked=checked)
            await crowd.pace(first, warm_frames)
            await crowd.finish(first)
            empty = await look(http)
            here = await crowd.gather(port, messages, sessions, checked=checked)
            idle = await look(http)
            await crowd.pace(here, RAMP_FRAMES + warm_frames, ramp=RAMP_FRAMES)
            yield Side(kind, http, [*first, *here], here, empty.rss_kb, idle.rss_kb)


def url(port: int) -> str:
    """Of a measured process."""
    return f"http://127.0.0.1:{port}"


async def look(http: aiohttp.ClientSession, *, trim: bool = False) -> Look:
    """Ask a measured process about itself; its stalls begin anew.

    Args:
        trim: have its allocator give back what it keeps in store first.
    """
    async with http.get("/bench", params={"trim": "1"} if trim else {}) as answer:
        return msgspec.json.decode(await answer.read(), type=Look)
