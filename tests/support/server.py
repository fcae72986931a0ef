"""The real server on a free port, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from aiohttp import web

from streamsrv import telemetry
from streamsrv.engines.base import LiveEngine, WindowEngine
from streamsrv.runtime.engines import Engines
from streamsrv.runtime.outbox import Outbox
from streamsrv.runtime.settings import ArchiveSettings, SessionSettings, SpoolSettings, UploadSettings
from streamsrv.runtime.streams import Streams
from streamsrv.server.app import make_app
from streamsrv.server.stream import SPEAKERS, STREAMS
from streamsrv.server.viewer import FANOUT
from streamsrv.server.wire import Runner
from streamsrv.settings import ServerSettings, Settings
from streamsrv.shared_state.base import SharedState
from streamsrv.sinks.base import Sink
from streamsrv.stores.base import TranscriptStore
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.support.engines import CountingEngine


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A server that listens."""

    port: int
    app: web.Application
    runner: Runner
    store: TranscriptStore
    numbers: telemetry.Metrics

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stream(self, interview: str = "t-1", query: str = "") -> str:
        return f"ws://127.0.0.1:{self.port}/transcription/stream/{interview}{'?' + query if query else ''}"

    @property
    def streams(self) -> Streams:
        return self.app[STREAMS]

    @property
    def shared(self) -> SharedState:
        return self.app[FANOUT].shared

    @property
    def connections(self) -> int:
        server = self.runner.server
        return len(server.connections) if server is not None else 0

    @property
    def speakers(self) -> int:
        return len(self.app[SPEAKERS])


@asynccontextmanager
async def running(
    folder: Path,
    *,
    engine: LiveEngine | WindowEngine | None = None,
    server: ServerSettings | None = None,
    session: SessionSettings | None = None,
    upload: UploadSettings | None = None,
    store: TranscriptStore | None = None,
    archive: ArchiveSettings | None = None,
    spool: SpoolSettings | None = None,
    sinks: Sequence[Sink] = (),
    shared: Callable[[telemetry.Metrics], SharedState] | None = None,
    loading: bool = False,
) -> AsyncIterator[Running]:
    """Start, serve, stop; everything a server does but signals.

    Args:
        folder: holds its data.
        shared: makes its way to other nodes.
        loading: the engine is not started yet; ``Engines.start`` does it.
    """
    settings = Settings(
        server=server or ServerSettings(),
        session=session or SessionSettings(),
        upload=upload or UploadSettings(),
        store=SqliteSettings(data_dir=str(folder)),
        archive=archive or ArchiveSettings(),
        spool=spool or SpoolSettings(),
    )
    numbers = telemetry.Metrics("test")
    hears: LiveEngine | WindowEngine = engine or CountingEngine()
    keeps = store or SqliteStore(settings.store)
    outbox = Outbox(keeps, sinks, settings.outbox, numbers.registry) if isinstance(keeps, SqliteStore) else None
    await keeps.open()
    if not loading:
        await hears.start()
    engines = Engines([hears], numbers)
    others = shared(numbers) if shared else None
    app = make_app(settings, store=keeps, engines=engines, numbers=numbers, outbox=outbox, shared=others)
    door = settings.server
    runner = Runner(app, most=door.max_connections, most_per_address=door.max_connections_per_address)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield Running(port=runner.addresses[0][1], app=app, runner=runner, store=keeps, numbers=numbers)
    finally:
        await runner.cleanup()
        await engines.close()
        await keeps.close()
