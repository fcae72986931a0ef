"""What must be gone when the nodes of a run have ended in order: locks, leases, announcements, open work, hints that
would stay.

Found where it lies, not through the stores, which would mend some of it.  What expires by itself is no orphan, as long
as it does within the time that is documented for its kind.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from streamsrv.errors import SetupError
from streamsrv.shared_state._redis.claims import CLAIM_MS
from streamsrv.shared_state._redis.shares import LEASE_MS
from streamsrv.shared_state._redis.starts import WINDOW_MS
from streamsrv.stores.base import OPEN_JOBS
from streamsrv.stores.sqlite.lock import ServerLock
from streamsrv.stores.sqlite.schema import DATABASE_NAME

if TYPE_CHECKING:
    from pymongo.asynchronous.database import AsyncDatabase
    from redis.asyncio import Redis

UNFINISHED: Final = ("spool/*", "uploads/*", "recordings/**/*.part", "node.new")
"""Files of a data directory that stand for work under way: words the store has not, recordings that wait to be heard or
still grow, a name half given."""
EXPIRES_MS: Final = {"node": CLAIM_MS, "speaker": CLAIM_MS, "share": 2 * LEASE_MS, "starts": WINDOW_MS}
"""How long each kind of key may stay in Redis when nobody renews it (``shared_state._redis.wire`` names them)."""
_OPEN: Final = sorted(OPEN_JOBS)


def of_folder(data: Path) -> Iterator[str]:
    """What lies in a node's data directory."""
    lock = ServerLock(data)
    try:
        lock.acquire()
    except SetupError as held:
        yield f"a lock: {held}"
    finally:
        lock.release()
    for pattern in UNFINISHED:
        yield from (f"file {path.relative_to(data)} of {data.parent.name}" for path in sorted(data.glob(pattern)))


def of_sqlite(data: Path) -> Iterator[str]:
    """What lies in the database of a node alone."""
    with closing(sqlite3.connect(f"file:{data / DATABASE_NAME}?mode=ro", uri=True)) as database:
        for sink, interview, node in database.execute("SELECT sink, interview, node FROM leases"):
            yield f"lease of {node} on {interview} for {sink}"
        jobs = "SELECT _id, state FROM jobs WHERE state IN (?, ?)"
        for job, state in database.execute(jobs, _OPEN):
            yield f"job {job} is still {state}"


async def announced(database: AsyncDatabase[dict[str, Any]]) -> list[str]:
    """Batches of finals that are said to be under way."""
    counter = await database.meta.find_one({"_id": "place"}) or {}
    return [f"batch {name} is still announced" for name in counter.get("writing", {})]


async def of_mongo(database: AsyncDatabase[dict[str, Any]], nodes: int) -> list[str]:
    """What lies in the database of several nodes.

    Args:
        nodes: as many have a sign of life in it: each goes on under its name when it is started again.
    """
    found = await announced(database)
    async for lease in database.leases.find():
        found.append(f"lease of {lease['node']} on {lease['_id']}")
    async for job in database.jobs.find({"state": {"$in": _OPEN}}):
        found.append(f"job {job['_id']} is still {job['state']}")
    async for word in database.deletions.find():
        found.append(f"word of the end of {word['interview']}")
    async for interview in database.interviews.find({"status": {"$ne": "completed"}}):
        found.append(f"interview {interview['_id']} is still {interview['status']}")
    if (known := await database.nodes.count_documents({})) > nodes:
        found.append(f"{known} nodes are known, of {nodes}")
    return found


async def of_redis(redis: Redis, prefix: str) -> list[str]:
    """Keys of one service that do not go by themselves in the time of their kind."""
    found = []
    async for key in redis.scan_iter(f"{prefix}:*"):
        kind = key.decode().removeprefix(f"{prefix}:").partition(":")[0]
        left_ms = await redis.pttl(key)  # -1: for ever; -2: it has gone since
        if left_ms == -1 or left_ms > EXPIRES_MS.get(kind, 0):
            found.append(f"key {key.decode()} goes in {left_ms} ms" if left_ms >= 0 else f"key {key.decode()} stays")
    return found
