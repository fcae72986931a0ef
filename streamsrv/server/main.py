"""``streamsrv serve``: start, say where, serve, drain, stop."""

from __future__ import annotations

import asyncio
import atexit
import gc
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

import streamsrv
from streamsrv import telemetry
from streamsrv.engines.base import About, WindowEngine
from streamsrv.errors import SetupError
from streamsrv.runtime.engines import Engines, is_window, make_engine
from streamsrv.runtime.neighbours import make_shared
from streamsrv.runtime.outbox import Outbox, make_sinks
from streamsrv.server import stores
from streamsrv.server.app import make_app
from streamsrv.server.container import DECODERS
from streamsrv.server.jobs import JOBS
from streamsrv.server.stream import STREAMS
from streamsrv.server.wire import Runner
from streamsrv.settings import Settings
from streamsrv.shared_state.base import SharedState
from streamsrv.stores.base import TranscriptStore

CLOSING_S = 2.0
"""Share of ``drain_s`` that is kept for closing stores, files and processes."""

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
    stop = _signals()  # first of all: whoever is told to stop while it starts stops as well
    numbers = telemetry.Metrics(streamsrv.__version__)
    wanted = settings.engine
    engine, why = make_engine(
        wanted.name, model=wanted.model, device=wanted.device, workers=wanted.workers, whisper=settings.whisper
    )
    engines = Engines([engine], numbers, rebuild=lambda: _again(settings))
    shared = make_shared(settings.redis, numbers.registry)
    sinks = make_sinks(
        settings.outbox, kafka=settings.kafka, redis_streams=settings.redis_streams, webhook=settings.webhook
    )
    with stores.chosen(settings) as store:
        outbox = Outbox(store, sinks, settings.outbox, numbers.registry, node=stores.relays_as(settings))
        if not await _opened(store, stop):
            log.info("server.stopped_early")
            return 0
        try:
            try:
                await _listen(settings, outbox, shared, engines, why, numbers, stop)
            finally:
                await engines.close()
        finally:
            await store.close()
    log.info("server.stopped")
    return 0


async def _opened(store: TranscriptStore, stop: asyncio.Event) -> bool:
    """Open the store, which may wait for its server; False when we are to stop meanwhile."""
    opening, stopping = asyncio.create_task(store.open()), asyncio.create_task(stop.wait())
    try:
        return await _done(opening, unless=stopping)
    finally:
        for task in (opening, stopping):
            task.cancel()
        await asyncio.gather(opening, stopping, return_exceptions=True)


async def _listen(
    settings: Settings,
    outbox: Outbox,
    shared: SharedState,
    engines: Engines,
    why: str,
    numbers: telemetry.Metrics,
    stop: asyncio.Event,
) -> None:
    """Window engines load while the first speakers are greeted already: their audio waits in the ring."""
    loading, stopping = asyncio.create_task(engines.start()), asyncio.create_task(stop.wait())
    try:
        if engines.default.abilities.live and not await _done(loading, unless=stopping):
            return log.info("server.stopped_early")
        app = make_app(settings, store=outbox.store, engines=engines, numbers=numbers, outbox=outbox, shared=shared)
        gc.collect()  # nobody is here yet
        async with _door(app, settings, stopping) as runner:
            if runner is None:
                return log.info("server.stopped_early")
            if await _done(loading, unless=stopping):
                settled()
                _say_ready(settings, runner, engines.default.about, why)
            await stopping
            stop.clear()
            await _drain(app, settings.server.drain_s, stop)
    finally:
        for task in (loading, stopping):
            task.cancel()
        await asyncio.gather(loading, stopping, return_exceptions=True)


async def _done(task: asyncio.Task[None], *, unless: asyncio.Task[object]) -> bool:
    """Wait for a task; False when the other one was done before.  Raises what the task raises."""
    await asyncio.wait({task, unless}, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        return False
    await task
    return True


@asynccontextmanager
async def _door(
    app: web.Application, settings: Settings, stopping: asyncio.Task[object]
) -> AsyncIterator[Runner | None]:
    """Listen, and close everything at the end; ``None`` when we are to stop before."""
    server = settings.server
    runner = Runner(app, most=server.max_connections, most_per_address=server.max_connections_per_address)
    beginning = asyncio.create_task(runner.setup())  # which may wait for the store
    try:
        if not await _done(beginning, unless=stopping):
            yield None
            return
        await app[DECODERS].cage()
        try:
            await web.TCPSite(runner, server.host, server.port, backlog=1024).start()
        except OSError as error:
            raise SetupError(
                f"cannot listen on {server.host}:{server.port}: {error.strerror}",
                hint="choose another --port, or stop what holds it",
            ) from error
        yield runner
    finally:
        beginning.cancel()
        await asyncio.gather(beginning, return_exceptions=True)
        await runner.cleanup()


def _again(settings: Settings) -> WindowEngine:
    """The engine anew, after it hung."""
    wanted = settings.engine
    engine, _ = make_engine(
        wanted.name, model=wanted.model, device=wanted.device, workers=wanted.workers, whisper=settings.whisper
    )
    if not is_window(engine):  # ``auto`` chose another: its weights went away meanwhile
        raise SetupError("the engine's model is gone", hint="put it back")
    return engine


def _signals() -> asyncio.Event:
    """Set by the first SIGTERM, SIGINT or SIGHUP, and again by a second one, which hurries."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup wants to be kept
            loop.add_signal_handler(number, stop.set)
    return stop


async def _drain(app: web.Application, within_s: float, hurry: asyncio.Event) -> None:
    """Everybody goes elsewhere; a part of the time is kept for closing what then is left."""
    streams = app[STREAMS]
    log.info("server.draining", sessions=streams.connected, within_s=within_s)
    app[JOBS].drain()
    draining = asyncio.create_task(streams.drain(within_s - min(CLOSING_S, within_s / 4)))
    hurried = asyncio.create_task(hurry.wait())
    await asyncio.wait({draining, hurried}, return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        log.info("server.hurried", sessions=streams.connected)
        streams.dismiss()
    for task in (draining, hurried):
        task.cancel()


def settled() -> None:
    """What is there now stays: the collector shall never walk through it again.

    A full collection stops every thread, the event loop among them, for as long as it walks: with all libraries and
    a model in the process 20 to 60 ms, with the sessions alone a few.
    """
    gc.freeze()
    atexit.register(gc.unfreeze)  # a library whose objects are never collected complains on stderr


def _say_ready(settings: Settings, runner: Runner, about: About, why: str) -> None:
    host, port = runner.addresses[0][:2]
    url = f"http://{'localhost' if host in ('127.0.0.1', '::1', '0.0.0.0', '::') else host}:{port}"
    log.info(
        "server.ready",
        url=url,
        engine=f"{about.name} ({about.model}, {about.device}): {why}",
        note=about.note,
        store="SQLite" if settings.mongo.url is None else f"MongoDB, database {settings.mongo.database}",
        data=str(Path(settings.store.data_dir).resolve()),
        next=f"streamsrv stream RECORDING.wav --url {url.replace('http', 'ws', 1)}",
    )
