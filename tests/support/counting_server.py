"""A server process for tests of processes: ``python -m tests.support.counting_server PORT FOLDER``.

The real server on the engine that counts half seconds; prints ``ready`` when it listens, runs until it is killed.
With ``--hear-s S`` each final takes so long.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from aiohttp import web

from streamsrv import telemetry
from streamsrv.runtime.engines import Engines
from streamsrv.server.app import make_app
from streamsrv.server.wire import Runner
from streamsrv.settings import Settings
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.support.engines import CountingEngine


async def main(port: int, folder: Path, hear_s: float) -> None:
    engine = CountingEngine()

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
