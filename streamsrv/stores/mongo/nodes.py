"""Which nodes live, and what those left that do not.

Each node raises a number in its own document.  Silence is measured on the watching node's own clock, and only while the
watcher itself can read: clocks of other machines do not matter, and a database that was away makes nobody look dead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec
from pymongo.errors import PyMongoError

from streamsrv import telemetry
from streamsrv.stores.base import JobError, StreamKey
from streamsrv.stores.mongo import failures, jobs
from streamsrv.stores.mongo.documents import SCHEMA, Rooms, date

BEATS: Final = 6
"""Signs of life within the time after which a node counts as silent."""
MAX_NODES: Final = 10_000
"""Nodes watched; those beyond are never taken for dead by this one."""
LOST = JobError(
    code="node_lost",
    message="the server that had the file is gone",
    hint="send the file again; what was stored of it before is in the transcript",
    http_status=503,
    retryable=True,
)

log = telemetry.logger("nodes")


class Nodes:
    """This node among the others.

    Args:
        node: its name, the same over restarts.
        silent_s: seconds of silence after which a node's streams may be ended.
        lost_s: seconds of silence after which its uploads are given up.
    """

    def __init__(
        self, rooms: Rooms, node: str, *, silent_s: float, lost_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rooms = rooms
        self._node = node
        self._silent_s = silent_s
        self._lost_s = lost_s
        self._clock = clock
        self._beats: dict[str, object] = {}
        self._silence_s: dict[str, float] = {}
        self._looked: float | None = None

    async def live(self) -> None:
        """Give signs of life and watch for others', until cancelled."""
        pause_s = self._silent_s / BEATS
        while True:
            try:
                await self.beat()
                await self.look()
                await self.give_up()
            except PyMongoError as error:
                log.debug("nodes.unseen", error=type(error).__name__)
            failures.heed_cancellation()
            await asyncio.sleep(pause_s)

    async def beat(self) -> None:
        """Give a sign of life."""
        seen = {"seenAt": date(time.time_ns() // 1_000_000), "schema": SCHEMA}
        await self._rooms.nodes.update_one({"_id": self._node}, {"$inc": {"beats": 1}, "$set": seen}, upsert=True)

    async def look(self) -> None:
        """See who gave a sign of life since the last look; a long time without a look counts as a short one."""
        now = self._clock()
        passed_s = 0.0 if self._looked is None else min(now - self._looked, 2 * self._silent_s / BEATS)
        found = {doc["_id"]: doc.get("beats") async for doc in self._rooms.nodes.find().limit(MAX_NODES)}
        found |= dict.fromkeys(set(await self._rooms.streams.distinct("node", {"status": "live"})) - set(found))
        for node, beats in found.items():
            if node in self._beats and self._beats[node] == beats:
                self._silence_s[node] += passed_s
            else:
                self._silence_s[node] = 0.0
        self._beats = found
        self._silence_s = {node: self._silence_s[node] for node in found}
        self._looked = now

    def silent_for(self, seconds: float) -> list[str]:
        """Other nodes that gave no sign of life for so long."""
        return sorted(n for n, silence_s in self._silence_s.items() if n != self._node and silence_s >= seconds)

    async def left_streams(self) -> tuple[StreamKey, ...]:
        """Live streams of nodes that are silent, and of this one, by interview and order."""
        gone = [None, self._node, *self.silent_for(self._silent_s)]
        uploads = set(await self._rooms.jobs.distinct("stream", {"state": jobs.OPEN}))
        found = self._rooms.streams.find(
            {"status": "live", "doomed": None, "node": {"$in": gone}}, {"interview": 1, "epoch": 1}
        )
        return tuple(
            [
                StreamKey(interview=doc["interview"], stream=doc["_id"], epoch=doc["epoch"])
                async for doc in found.sort([("interview", 1), ("order", 1)])
                if doc["_id"] not in uploads
            ]
        )

    async def give_up(self) -> None:
        """Let the uploads of lost nodes fail: nobody else has their files.  Then those nodes are forgotten."""
        lost = self.silent_for(self._lost_s)
        if not lost:
            return
        failed = {
            "state": "failed",
            "error": msgspec.to_builtins(LOST),
            "ended_ms": time.time_ns() // 1_000_000,
        }
        done = await self._rooms.jobs.update_many({"state": jobs.OPEN, "node": {"$in": lost}}, {"$set": failed})
        if done.modified_count:
            log.warning("jobs.given_up", jobs=done.modified_count)
        busy = set(await self._rooms.streams.distinct("node", {"status": "live"}))
        await self._rooms.nodes.delete_many({"_id": {"$in": [node for node in lost if node not in busy]}})
