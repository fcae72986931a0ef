"""A server process of the next version, which knows more fields.

``python -m tests.services.mongo.neighbour URL DATABASE STREAM`` writes documents as that version would, on the store as
it is now: begins a stream of its own, and takes the other one over when a line comes.  It keeps finals of each until a
line comes: it says ``writing`` behind the first, and how many they were.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from streamsrv.stores.base import StreamKey
from streamsrv.stores.mongo import client, documents, streams
from streamsrv.stores.mongo.settings import MongoSettings
from streamsrv.stores.mongo.store import MongoStore
from tests.stores.builders import NOW_MS, begin, final, token

_segment_to, _options_to = documents.segment_to, documents.options_to


def _newer_segment(*args: Any) -> documents.Doc:
    return _segment_to(*args) | {"mood": "calm", "schema": 2}


def _newer_options(*args: Any) -> documents.Doc:
    return _options_to(*args) | {"dialect": "northern"}


async def main(url: str, database: str, stream: str) -> None:
    for module in (client, streams, documents):
        setattr(module, "SCHEMA", 2)  # noqa: B010
    setattr(documents, "segment_to", _newer_segment)  # noqa: B010
    setattr(documents, "options_to", _newer_options)  # noqa: B010
    store = MongoStore(MongoSettings(url=url, database=database), node="n-newer")
    await store.open()
    _, key = await begin(store, stream="s-newer")
    await write(store, key, 0)
    await line()
    resumed = await store.resume_stream(stream, token(stream), now_ms=NOW_MS)
    await write(store, resumed.key, resumed.starts[0].next_segment)
    await store.close()


async def write(store: MongoStore, key: StreamKey, segment: int) -> None:
    """Finals from this segment on until a line comes, and one more."""
    first, told = segment, asyncio.create_task(line())
    while True:
        last = told.done()
        assert await store.keep_final(key, final(segment, text=f"newer {segment}"))
        if segment == first:
            say("writing")
        segment += 1
        if last:
            break
    say(str(segment - first))


async def line() -> str:
    return await asyncio.to_thread(sys.stdin.readline)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
