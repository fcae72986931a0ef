"""A node that is killed while a final of its stream is on its way.

``python -m tests.services.mongo.doomed URL DATABASE TIMEOUT_S`` begins a stream of its own, says so, and keeps a final.
"""

from __future__ import annotations

import asyncio
import sys

from streamsrv.stores.mongo.settings import MongoSettings
from streamsrv.stores.mongo.store import MongoStore
from tests.stores.builders import begin, final


async def main(url: str, database: str, timeout_s: str) -> None:
    store = MongoStore(MongoSettings(url=url, database=database, timeout_s=float(timeout_s)))
    await store.open()
    _, key = await begin(store, stream="s-doomed")
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    await store.keep_final(key, final(0))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
