"""The application: every path in one place, and the tasks that live as long as the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from streamsrv import telemetry
from streamsrv.runtime.engines import Engines
from streamsrv.runtime.streams import Services, Streams
from streamsrv.server.answers import DOOR, METRICS, door
from streamsrv.server.auth import Door
from streamsrv.server.health import ENGINES, health, metrics, ready
from streamsrv.server.page import page
from streamsrv.server.stream import SESSION, SPEAKERS, STREAMS, stream
from streamsrv.server.transcripts import STORE, transcript
from streamsrv.settings import Settings
from streamsrv.stores.base import TranscriptStore

HEARTBEAT_S = 15.0
"""Silence after which a peer is pinged; it is cut after half as much again."""
STALL_EVERY_S = 0.1
"""How often the event loop's lateness is measured."""


def make_app(
    settings: Settings, *, store: TranscriptStore, engines: Engines, numbers: telemetry.Metrics
) -> web.Application:
    """The application on an open store and started engines."""
    app = web.Application(middlewares=[door])
    app[DOOR] = Door(settings.server.api_keys, settings.server.allowed_origins)
    app[METRICS] = numbers
    app[ENGINES] = engines
    app[STORE] = store
    app[SESSION] = settings.session
    app[SPEAKERS] = set()
    services = Services(store, numbers)
    app[STREAMS] = Streams(services, engines, settings.session, max_sessions=settings.server.max_sessions)
    app.add_routes(
        [
            web.get("/", page),
            web.get("/health", health),
            web.get("/health/ready", ready),
            web.get("/metrics", metrics),
            web.get("/transcription/stream/{interview}", stream),
            web.get("/transcription/{interview}", transcript),
        ]
    )
    app.cleanup_ctx.append(_watch)
    return app


async def _watch(app: web.Application) -> AsyncIterator[None]:
    await app[STREAMS].start()
    tasks = [asyncio.create_task(_pulse(app)), asyncio.create_task(_stalls(app[METRICS]))]
    yield
    for task in tasks:
        task.cancel()


async def _pulse(app: web.Application) -> None:
    """One task watches all connections: a timer each would cost more than the connections do."""
    loop = asyncio.get_running_loop()
    speakers = app[SPEAKERS]
    while True:
        await asyncio.sleep(HEARTBEAT_S / 8)
        now = loop.time()
        for speaker in tuple(speakers):
            speaker.pulse(now, HEARTBEAT_S)


async def _stalls(numbers: telemetry.Metrics) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + STALL_EVERY_S
        await asyncio.sleep(STALL_EVERY_S)
        numbers.loop_stall.observe(max(0.0, loop.time() - due))
