"""Hearing files without a server: the same decoder, session and engine, with a store that lasts for the while."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

from streamsrv import telemetry
from streamsrv.audio.decode import CageSettings
from streamsrv.commands import Options
from streamsrv.errors import NotFound, StreamsrvError
from streamsrv.facts import RATE_HZ
from streamsrv.runtime.decoders import Decoders
from streamsrv.runtime.engines import Engines
from streamsrv.runtime.fanout import Fanout
from streamsrv.runtime.file_run import FileRun
from streamsrv.runtime.recorder import Recorder
from streamsrv.runtime.settings import ArchiveSettings, SessionSettings, SpoolSettings
from streamsrv.runtime.spool import Spool
from streamsrv.runtime.streams import Services
from streamsrv.stores.base import Job
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from streamsrv.stores.transcript import Document, document

LOOK_EVERY_S = 0.2
"""How often progress is told."""

Tell: TypeAlias = Callable[[float, float | None], None]
"""``(seconds heard, seconds in all or None)``."""


class Alone:
    """Hears files one after the other; made by ``alone``."""

    def __init__(
        self, services: Services, engines: Engines, decoders: Decoders, session: SessionSettings, longest_s: float
    ) -> None:
        self._services = services
        self._engines = engines
        self._decoders = decoders
        self._session = session
        self._longest_s = longest_s

    async def hear(
        self, path: Path, options: Options, tell: Tell = lambda heard, total: None
    ) -> tuple[Document, tuple[str, ...]]:
        """The transcript of one file, and what is to be said about it.

        Raises:
            NotFound: there is no such file.
            UnsupportedMedia, BadMedia, MediaTooLong: nothing of it can be heard.
            BadRequest, UnsupportedLanguage: the options do not fit.
        """
        job = _job(options, self._engines.choose(options.engine).about.name, path)
        run = FileRun(self._services, self._engines, self._session, self._longest_s, job, path)
        watching = asyncio.create_task(_watch(run, tell))
        try:
            heard = await run.work(await self._decoders.cage())
        finally:
            watching.cancel()
        store = self._services.store
        found = await store.interview(job.interview)
        if found is None:
            raise StreamsrvError("the transcript is not in the store")
        said = document(found, await store.streams(job.interview), await store.finals(job.interview))
        broken = () if heard.failure is None else (heard.failure.message,)
        return said, heard.warnings + broken


async def _watch(run: FileRun, tell: Tell) -> None:
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        tell(run.heard / RATE_HZ, run.duration_s)


def _job(options: Options, engine: str, path: Path) -> Job:
    if not path.is_file():
        raise NotFound(f"{path} is not a file", hint="name an audio or video file")
    return Job(
        id="job-alone",
        interview=f"file-{secrets.token_hex(8)}",
        options=options,
        engine=engine,
        stream=f"st-{secrets.token_hex(8)}",
        token_hash=secrets.token_bytes(32),
        spooled=path.name,
        size_bytes=path.stat().st_size,
        created_ms=time.time_ns() // 1_000_000,
    )


@asynccontextmanager
async def alone(
    engines: Engines, numbers: telemetry.Metrics, session: SessionSettings, decode: CageSettings
) -> AsyncIterator[Alone]:
    """Everything that hearing files needs but the engines, which are the caller's and started."""
    with TemporaryDirectory(prefix="streamsrv-") as folder:
        store = SqliteStore(SqliteSettings(data_dir=folder))
        decoders = Decoders(decode)
        await store.open()
        try:
            fanout = Fanout(store, numbers, most=1)
            spool = Spool(Path(folder) / "spool", SpoolSettings(max_mb=0), store, numbers)
            services = Services(store, numbers, fanout, Recorder(folder, ArchiveSettings()), spool)
            yield Alone(services, engines, decoders, session, decode.max_duration_s)
        finally:
            await decoders.close()
            await store.close()
