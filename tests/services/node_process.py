"""One node as a process: ``python -m tests.services.node_process PORT FOLDER MONGO_URL DATABASE REDIS_URL``.

The real server, on MongoDB and Redis, with the engine that counts half seconds; prints ``ready`` when it listens.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from aiohttp import web

from streamsrv import telemetry
from streamsrv.runtime.engines import Engines
from streamsrv.runtime.neighbours import make_shared
from streamsrv.server import stores
from streamsrv.server.app import make_app
from streamsrv.server.wire import Runner
from streamsrv.settings import Settings
from streamsrv.shared_state._redis.settings import RedisSettings
from streamsrv.stores.mongo.settings import MongoSettings
from streamsrv.stores.sqlite import SqliteSettings
from tests.support.engines import CountingEngine


async def main(port: int, folder: Path, mongo: str, database: str, redis: str) -> None:
    settings = Settings(
        store=SqliteSettings(data_dir=str(folder)),
        mongo=MongoSettings(url=mongo, database=database),
        redis=RedisSettings(url=redis, node=folder.name, prefix=database),
    )
    telemetry.configure(level="info", format="json", stream=sys.stderr)
    numbers = telemetry.Metrics("test")
    with stores.chosen(settings) as store:
        await store.open()
        shared = make_shared(settings.redis, numbers.registry)
        engines = Engines([CountingEngine()], numbers)
        app = make_app(settings, store=store, engines=engines, numbers=numbers, shared=shared)
        runner = Runner(app, most=settings.server.max_connections)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
