"""A server process for tests of processes: ``python -m tests.support.counting_server PORT FOLDER``.

The real server on the engine that counts half seconds; prints ``ready`` when it listens, runs until it is killed.
With ``--hear-s S`` each final takes so long.  A segment of more than ``DEADLY_S`` of speech kills the whole process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from aiohttp import web

from streamsrv import telemetry
from streamsrv.engines.base import Hypothesis, Listener
from streamsrv.facts import RATE_HZ
from streamsrv.runtime.engines import Engines
from streamsrv.server.app import make_app
from streamsrv.server.wire import Runner
from streamsrv.settings import Settings
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.support.engines import CountingEngine, CountingListener

DEADLY_S = 8.0


class DeadlyListener(CountingListener):
    """Dies of long segments, and takes everybody along."""

    async def hear(self, samples: bytes, *, final: bool) -> Hypothesis:
        if len(samples) > DEADLY_S * 2 * RATE_HZ:
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().hear(samples, final=final)


class DeadlyEngine(CountingEngine):
    """Counts half seconds, but not too many."""

    def listen(self, *, language: str | None, background: bool = False) -> Listener:
        return DeadlyListener(self)


async def main(port: int, folder: Path, hear_s: float) -> None:
    engine = DeadlyEngine()

    async def gate(final: bool) -> None:
        if final and hear_s:
            await asyncio.sleep(hear_s)

    engine.gate = gate
    settings = Settings(store=SqliteSettings(data_dir=str(folder)))
    numbers = telemetry.Metrics("test")
    store = SqliteStore(settings.store)
    await store.open()
    app = make_app(settings, store=store, engines=Engines([engine], numbers), numbers=numbers)
    runner = Runner(app, most=settings.server.max_connections)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[4]) if len(sys.argv) > 4 else 0.0))
