"""``streamsrv serve``: start, say where, serve, drain, stop."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from aiohttp import web

import streamsrv
from streamsrv import telemetry
from streamsrv.engines.base import LiveEngine
from streamsrv.errors import SetupError
from streamsrv.runtime.engines import Engines, make_engine
from streamsrv.server.app import make_app
from streamsrv.server.stream import STREAMS
from streamsrv.server.wire import Runner
from streamsrv.settings import Settings
from streamsrv.stores.base import TranscriptStore
from streamsrv.stores.sqlite import SqliteStore

log = telemetry.logger("server")


def run(settings: Settings) -> int:
    """Serve until a signal; the exit code.

    Raises:
        SetupError: the server cannot start as configured.
    """
    sink = telemetry.configure(level=settings.server.log_level, format=settings.server.log_format)
    try:
        return asyncio.run(_serve(settings))
    finally:
        sink.close()


async def _serve(settings: Settings) -> int:
    numbers = telemetry.Metrics(streamsrv.__version__)
    wanted = settings.engine
    engine, why = make_engine(wanted.name, model=wanted.model, device=wanted.device, workers=wanted.workers)
    store = SqliteStore(settings.store)
    await store.open()
    try:
        await engine.start()
        try:
            await _listen(settings, store, engine, why, numbers)
        finally:
            await engine.close()
    finally:
        await store.close()
    log.info("server.stopped")
    return 0


async def _listen(
    settings: Settings, store: TranscriptStore, engine: LiveEngine, why: str, numbers: telemetry.Metrics
) -> None:
    app = make_app(settings, store=store, engines=Engines([engine], numbers), numbers=numbers)
    runner = Runner(app, most=settings.server.max_connections)
    await runner.setup()
    try:
        host, port = settings.server.host, settings.server.port
        try:
            await web.TCPSite(runner, host, port, backlog=1024).start()
        except OSError as error:
            raise SetupError(
                f"cannot listen on {host}:{port}: {error.strerror}", hint="choose another --port, or stop what holds it"
            ) from error
        stop = _signals()
        _say_ready(settings, runner, engine, why)
        await stop.wait()
        stop.clear()
        await _drain(app, settings.server.drain_s, stop)
    finally:
        await runner.cleanup()


def _signals() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT, and again by a second one, which hurries."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _drain(app: web.Application, within_s: float, hurry: asyncio.Event) -> None:
    streams = app[STREAMS]
    log.info("server.draining", sessions=streams.connected, within_s=within_s)
    draining = asyncio.create_task(streams.drain(within_s))
    hurried = asyncio.create_task(hurry.wait())
    await asyncio.wait({draining, hurried}, return_when=asyncio.FIRST_COMPLETED)
    for task in (draining, hurried):
        task.cancel()


def _say_ready(settings: Settings, runner: Runner, engine: LiveEngine, why: str) -> None:
    host, port = runner.addresses[0][:2]
    url = f"http://{'localhost' if host in ('127.0.0.1', '::1', '0.0.0.0', '::') else host}:{port}"
    about = engine.about
    log.info(
        "server.ready",
        url=url,
        engine=f"{about.name} ({about.model}, {about.device}): {why}",
        note=about.note,
        data=str(Path(settings.store.data_dir).resolve()),
        next=f"streamsrv stream RECORDING.wav --url {url.replace('http', 'ws', 1)}",
    )
