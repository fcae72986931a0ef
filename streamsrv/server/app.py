"""The application: every path in one place, and the tasks that live as long as the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from aiohttp import hdrs, web

from streamsrv import telemetry
from streamsrv.errors import StoreUnavailable
from streamsrv.runtime.archive import Archive
from streamsrv.runtime.decoders import Decoders
from streamsrv.runtime.engines import Engines
from streamsrv.runtime.fanout import Fanout
from streamsrv.runtime.jobs import Jobs
from streamsrv.runtime.neighbours import Neighbours
from streamsrv.runtime.ongoing import Ongoing
from streamsrv.runtime.outbox import Outbox
from streamsrv.runtime.recorder import Recorder
from streamsrv.runtime.spool import Spool
from streamsrv.runtime.streams import Services, Streams
from streamsrv.runtime.uploads import Uploads
from streamsrv.server.answers import DOOR, METRICS, NAME, door
from streamsrv.server.auth import Door
from streamsrv.server.container import DECODERS
from streamsrv.server.health import ENGINES, health, metrics, ready
from streamsrv.server.jobs import JOBS, cancel, look
from streamsrv.server.outbox import OUTBOX, dead_letters, retry
from streamsrv.server.page import page, part
from streamsrv.server.recordings import RECORDER, recording, recordings
from streamsrv.server.shares import SHARES, Shares
from streamsrv.server.sse import stream_events
from streamsrv.server.starts import STARTS, Starts
from streamsrv.server.stream import SESSION, SPEAKERS, STREAMS, stream
from streamsrv.server.transcripts import ARCHIVE, STORE, delete, interviews, transcript
from streamsrv.server.upload import UPLOAD, no_hurry, upload
from streamsrv.server.viewer import FANOUT, VIEWERS
from streamsrv.settings import Settings
from streamsrv.shared_state.base import SharedState
from streamsrv.shared_state.memory import MemoryState
from streamsrv.stores.base import TranscriptStore

SPOOL = web.AppKey("spool", Spool)
HEARTBEAT_S = 15.0
"""Silence after which a peer is pinged; it is cut after half as much again."""
STORE_EVERY_S = 1.0
"""Pause between two tries to read what a process before left."""
STALL_EVERY_S = 0.1
"""How often the event loop's lateness is measured."""


ROUTES = (
    web.get("/", page),
    web.get("/page/{name}", part),
    web.get("/health", health),
    web.get("/health/ready", ready),
    web.get("/metrics", metrics),
    web.get("/transcription/stream/{interview:[^/]+}", stream),
    web.post("/transcription/upload", upload, expect_handler=no_hurry),
    web.get("/transcription/jobs/{job}", look),
    web.delete("/transcription/jobs/{job}", cancel),
    web.get("/transcription", interviews),
    web.get("/transcription/{interview:[^/]+}", transcript),
    web.delete("/transcription/{interview:[^/]+}", delete),
    web.get("/transcription/{interview:[^/]+}/events", stream_events, allow_head=False),
    web.get("/transcription/{interview:[^/]+}/recordings", recordings),
    web.get("/transcription/{interview:[^/]+}/recordings/{stream}/{channel}.flac", recording),
    web.get("/outbox/dead", dead_letters),
    web.post("/outbox/retry", retry),
)


def make_app(
    settings: Settings,
    *,
    store: TranscriptStore,
    engines: Engines,
    numbers: telemetry.Metrics,
    outbox: Outbox | None = None,
    shared: SharedState | None = None,
) -> web.Application:
    """The application on an open store; it starts and closes the outbox, and opens and closes shared state."""
    shared = shared or MemoryState()
    app = web.Application(middlewares=[door])
    app[DOOR] = Door(settings.server.api_keys, settings.server.allowed_origins)
    app[METRICS] = numbers
    app[ENGINES] = engines
    app[STORE] = store
    app[OUTBOX] = outbox
    app[SESSION] = settings.session
    app[SPEAKERS] = set()
    app[SHARES] = Shares(settings.server.max_sessions_per_key, shared)
    app[STARTS] = Starts(settings.server.max_starts_per_minute_per_key, shared, numbers.registry, time.monotonic)
    app[VIEWERS] = set()
    app[SPOOL] = spool = _spool(settings, store, numbers)
    app[FANOUT] = fanout = Fanout(
        store, numbers, most=settings.server.max_viewers, unstored=spool.unstored, shared=shared
    )
    app[RECORDER] = recorder = Recorder(settings.store.data_dir, settings.archive)
    services = Services(store, numbers, fanout, recorder, spool)
    app[STREAMS] = Streams(services, engines, settings.session, max_sessions=settings.server.max_sessions)
    app[UPLOAD] = settings.upload
    app[DECODERS] = Decoders(settings.decode)
    app[JOBS] = _jobs(settings, services, engines, app[DECODERS])
    app[ARCHIVE] = _archive(settings, services, app)
    app.add_routes(ROUTES)
    app.cleanup_ctx.append(_watch)
    app.on_shutdown.append(_dismiss)
    app.on_response_prepare.append(_nameless)
    return app


def _archive(settings: Settings, services: Services, app: web.Application) -> Archive:
    return Archive(
        services.store,
        app[STREAMS],
        services.fanout,
        app[RECORDER],
        services.spool,
        app[JOBS],
        retain_days=settings.archive.retain_days,
        utc_ms=services.utc_ms,
    )


def _spool(settings: Settings, store: TranscriptStore, numbers: telemetry.Metrics) -> Spool:
    folder = settings.spool.dir or Path(settings.store.data_dir) / "spool"
    return Spool(Path(folder), settings.spool, store, numbers)


def _jobs(settings: Settings, services: Services, engines: Engines, decoders: Decoders) -> Jobs:
    return Jobs(
        services,
        engines,
        decoders,
        session=settings.session,
        settings=settings.upload,
        uploads=Uploads(Path(settings.store.data_dir) / "uploads"),
        longest_s=settings.decode.max_duration_s,
    )


async def _nameless(request: web.Request, response: web.StreamResponse) -> None:
    response.headers[hdrs.SERVER] = NAME


async def _dismiss(app: web.Application) -> None:
    """Viewers have seen the last finals; without this their connections would outlive the streams."""
    app[FANOUT].close()


async def _watch(app: web.Application) -> AsyncIterator[None]:
    shared = app[FANOUT].shared
    neighbours = Neighbours(shared, app[STORE], app[FANOUT], app[STREAMS])
    tasks: list[asyncio.Task[None]] = []
    outbox = app[OUTBOX]
    await shared.open(neighbours)
    try:
        await app[SPOOL].start()  # words that were shown are in the store before anybody takes their stream over
        for start in (app[JOBS].start, app[STREAMS].start):
            await _once_the_store_is_there(start, app[SPOOL].store_away)
        work = (_pulse(app), _stalls(app[METRICS]), app[ARCHIVE].run(), neighbours.run())
        tasks += [asyncio.create_task(one) for one in work]
        if outbox is not None:
            outbox.start()
        yield
    finally:
        await app[STREAMS].close()
        await app[JOBS].close()
        await app[DECODERS].close()
        for task in tasks:
            task.cancel()
        await neighbours.close()
        await shared.close()
        await app[RECORDER].close()
        await app[SPOOL].close()
        if outbox is not None:
            await outbox.close()


async def _once_the_store_is_there(start: Callable[[], Awaitable[None]], away: Ongoing) -> None:
    """It was opened, and may have gone away since; nobody is let in before what a process before left is read."""
    while True:
        try:
            await start()
        except StoreUnavailable as error:
            away.came(error)
            await asyncio.sleep(STORE_EVERY_S)
        else:
            return away.passed()


async def _pulse(app: web.Application) -> None:
    """One task watches all connections: a timer each would cost more than the connections do."""
    loop = asyncio.get_running_loop()
    speakers, viewers = app[SPEAKERS], app[VIEWERS]
    while True:
        await asyncio.sleep(HEARTBEAT_S / 8)
        now = loop.time()
        for peer in (*speakers, *viewers):
            peer.pulse(now, HEARTBEAT_S)


async def _stalls(numbers: telemetry.Metrics) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + STALL_EVERY_S
        await asyncio.sleep(STALL_EVERY_S)
        numbers.loop_stall.observe(max(0.0, loop.time() - due))
