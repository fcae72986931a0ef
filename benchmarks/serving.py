"""The process that is measured: ``python -m benchmarks.serving KIND``.

``null`` and ``talking`` are this server, whole, on an engine that hears nothing; ``forgetful`` is ``null`` on a store
that takes finals and restart points without keeping them; ``whisper`` is this server as ``streamsrv serve`` would run
it under the settings given by ``--set``; ``bare`` is the least an aiohttp server of this kind can do: a handler that
asks ``webrtcvad`` about each frame.  All tell their own cost at ``/bench``.  The process prints its port and ends when
its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter

import msgspec
import webrtcvad
from aiohttp import WSMsgType, web

from benchmarks.null import NullEngine
from benchmarks.stalls import LONG_MS, MOST_LONG, LongStall, Whereabouts
from streamsrv import telemetry
from streamsrv.events import Final
from streamsrv.facts import Position
from streamsrv.runtime.engines import Engines, make_engine
from streamsrv.runtime.settings import SessionSettings
from streamsrv.server.app import make_app
from streamsrv.server.main import settled
from streamsrv.server.wire import Runner
from streamsrv.settings import ServerSettings, Settings, load
from streamsrv.stores.base import Anchor, StreamKey
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore

STALL_EVERY_S = 0.005
MOST_STALLS = 200_000
"""Samples of the loop's lateness kept between two looks at ``/bench``, a quarter of an hour; then sampling pauses."""
STREAM = "/transcription/stream/{interview}"


class Probe:
    """Tells this process's cost.

    Args:
        frames: how many binary messages were taken so far.
    """

    def __init__(self, frames: Callable[[], int], finals_ms: list[float] | None = None) -> None:
        self._frames = frames
        self._finals_ms = [] if finals_ms is None else finals_ms
        self._stalls_ms: list[float] = []
        self._long: list[LongStall] = []

    async def sample(self) -> None:
        """Measure how late the loop comes back to an alarm, for ever, and where the time of long ones went."""
        loop = asyncio.get_running_loop()
        with Whereabouts() as whereabouts:
            while True:
                due = loop.time() + STALL_EVERY_S
                await asyncio.sleep(STALL_EVERY_S)
                late_ms = 1000 * max(0.0, loop.time() - due)
                spent = whereabouts.since()
                if len(self._stalls_ms) < MOST_STALLS:
                    self._stalls_ms.append(late_ms)
                if late_ms >= LONG_MS and len(self._long) < MOST_LONG:
                    self._long.append(LongStall(late_ms=round(late_ms, 1), **spent))

    async def tell(self, request: web.Request) -> web.Response:
        """CPU seconds, frames, resident kB, open files, and since the last look: stalls and times of kept finals.

        With ``?trim=1`` the allocator gives back first what it only keeps in store.
        """
        if "trim" in request.query:
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)
        used = resource.getrusage(resource.RUSAGE_SELF)
        stalls, self._stalls_ms = self._stalls_ms, []
        figures = {"cpu_s": used.ru_utime + used.ru_stime, "frames": self._frames(), "rss_kb": _rss_kb()}
        finals = self._finals_ms[:]
        self._finals_ms.clear()
        long, self._long = self._long, []
        files = len(os.listdir("/proc/self/fd"))
        told = {"stalls_ms": stalls, "long_stalls": msgspec.to_builtins(long), "finals_ms": finals, "files": files}
        return web.json_response(figures | told)


def _rss_kb() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


# --- stores ------------------------------------------------------------------------------------------------------


class Timed(SqliteStore):
    """The store, and how long it takes for a final."""

    def __init__(self, settings: SqliteSettings) -> None:
        super().__init__(settings)
        self.finals_ms: list[float] = []

    async def keep_final(self, key: StreamKey, final: Final) -> bool:
        begun = perf_counter()
        kept = await super().keep_final(key, final)
        if len(self.finals_ms) < MOST_STALLS:
            self.finals_ms.append(1000 * (perf_counter() - begun))
        return kept


class Forgetful(Timed):
    """Takes what a session keeps on its way, and forgets it: what durability would cost if it cost nothing."""

    async def keep_final(self, key: StreamKey, final: Final) -> bool:
        return True

    async def keep_progress(self, key: StreamKey, restarts: tuple[Position, ...], anchors: tuple[Anchor, ...]) -> bool:
        return True


# --- ours --------------------------------------------------------------------------------------------------------


def on_null(
    data_dir: Path, tape: bytes, *, talks: bool, resume_window_s: float
) -> tuple[Settings, Engines, telemetry.Metrics]:
    """A server of many speakers whose engine hears nothing."""
    settings = Settings(
        server=ServerSettings(max_sessions=10_000, max_connections=20_000),
        session=SessionSettings(resume_window_s=resume_window_s),
        store=SqliteSettings(data_dir=str(data_dir)),
    )
    numbers = telemetry.Metrics("bench")
    return settings, Engines([NullEngine(tape, talks=talks)], numbers), numbers


async def on_whisper(data_dir: Path, chosen: Sequence[str]) -> tuple[Settings, Engines, telemetry.Metrics]:
    """A server whose engine is loaded; ``chosen`` are settings as ``KEY=VALUE``."""
    flags: dict[str, object] = {"store.data_dir": str(data_dir)}
    for assignment in chosen:
        key, _, value = assignment.partition("=")
        flags[key] = value
    settings = load(None, flags=flags).settings
    wanted, numbers = settings.engine, telemetry.Metrics("bench")
    engine, _ = make_engine(
        "whisper", model=wanted.model, device=wanted.device, workers=wanted.workers, whisper=settings.whisper
    )
    engines = Engines([engine], numbers)
    await engines.start()
    return settings, engines, numbers


async def ours(
    stack: AsyncExitStack, kind: str, settings: Settings, engines: Engines, numbers: telemetry.Metrics
) -> tuple[web.AppRunner, Probe]:
    """This server as ``streamsrv serve`` composes it."""
    stack.push_async_callback(engines.close)
    store = (Forgetful if kind == "forgetful" else Timed)(settings.store)
    await store.open()
    stack.push_async_callback(store.close)
    app = make_app(settings, store=store, engines=engines, numbers=numbers)
    probe = Probe(
        lambda: int(numbers.registry.get_sample_value("streamsrv_messages_total", {"kind": "binary"}) or 0),
        store.finals_ms,
    )
    app.router.add_get("/bench", probe.tell)
    return Runner(app, most=settings.server.max_connections), probe


# --- bare --------------------------------------------------------------------------------------------------------


class Bare:
    """The handler everything is compared with; counts what it takes."""

    def __init__(self) -> None:
        self.frames = 0

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        vad = webrtcvad.Vad(2)
        frames = voiced = 0
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                frames += 1
                self.frames += 1
                voiced += vad.is_speech(message.data, 16_000)
            else:
                await socket.send_str(json.dumps({"type": "closed", "audio_ms": frames * 20, "finals": 0}))
        return socket


async def bare() -> tuple[web.AppRunner, Probe]:
    handler = Bare()
    probe = Probe(lambda: handler.frames)
    app = web.Application()
    app.router.add_get(STREAM, handler.handle)
    app.router.add_get("/bench", probe.tell)
    return web.AppRunner(app, access_log=None), probe


# --- the process -------------------------------------------------------------------------------------------------


async def serve(asked: argparse.Namespace) -> None:
    """Serve until standard input ends."""
    tape = asked.tape.read_bytes() if asked.tape else b""
    async with AsyncExitStack() as stack:
        if asked.kind == "bare":
            runner, probe = await bare()
        elif asked.kind == "whisper":
            runner, probe = await ours(stack, asked.kind, *await on_whisper(asked.data_dir, asked.set))
        else:
            made = on_null(asked.data_dir, tape, talks=asked.kind == "talking", resume_window_s=asked.resume_window_s)
            runner, probe = await ours(stack, asked.kind, *made)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        settled()
        sampler = asyncio.create_task(probe.sample())
        stack.callback(sampler.cancel)
        print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGTERM, lambda: None
        )  # standard input ends at the same time
        await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("kind", choices=("null", "talking", "forgetful", "whisper", "bare"))
    parser.add_argument("--cpu", type=int, help="the one core to run on")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--resume-window-s", type=float, default=60.0)
    parser.add_argument("--tape", type=Path, help="file with the samples the speakers send")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="settings of 'whisper'")
    asked = parser.parse_args()
    if asked.cpu is not None:
        os.sched_setaffinity(0, {asked.cpu})
    with open(os.devnull, "w") as nowhere:
        sink = telemetry.configure(format="json", stream=nowhere)
        asyncio.run(serve(asked))
        sink.close()


if __name__ == "__main__":
    main()
