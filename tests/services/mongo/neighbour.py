"""A server process of the next version, which knows more fields.

``python -m tests.services.mongo.neighbour URL DATABASE STREAM`` writes documents as that version would, on the store as
it is now: takes the stream over, keeps three finals, begins a stream of its own.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

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
    resumed = await store.resume_stream(stream, token(stream), now_ms=NOW_MS)
    following = resumed.starts[0].next_segment
    for segment in range(following, following + 3):
        assert await store.keep_final(resumed.key, final(segment, text=f"newer {segment}"))
    _, key = await begin(store, stream="s-newer")
    await store.keep_final(key, final(0, text="newer, own"))
    await store.close()
    sys.stdout.write("done\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
