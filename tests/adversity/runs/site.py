"""Where a run takes place: its nodes, the store behind them, and what stands around."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from streamsrv.stores.handoff import SinkFigures, Store
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.adversity.runs import leftovers
from tests.adversity.runs.balancer import Balancer
from tests.adversity.runs.handed import handed_from
from tests.adversity.runs.harms import harm_line
from tests.adversity.runs.hook import CLOCKS_APART_S, SINK, Hook
from tests.adversity.runs.ledger import Died, Handed
from tests.adversity.runs.node import DISKS, Node
from tests.adversity.runs.odds import FASTER
from tests.adversity.runs.plan import Fault, Plan
from tests.adversity.runs.reader import Reader

if TYPE_CHECKING:
    from tests.adversity.runs.services import Services

RESUME_WINDOW_S = 60.0 / FASTER
"""A minute, on the fast clock of the speakers."""
DRAIN_S = 3.0
HANDED_WITHIN_S = 25.0
"""Sinks that lack something by then will lack it for ever."""
LOOKS_EVERY_S = 0.1


def _settings(model: Path) -> dict[str, str]:
    return {
        "STREAMSRV_ENGINE_NAME": "whisper",
        "STREAMSRV_ENGINE_MODEL": str(model),
        "STREAMSRV_WHISPER_CPU_THREADS": "1",
        "STREAMSRV_WHISPER_NUM_WORKERS": "1",
        "STREAMSRV_WHISPER_WINDOW_FLOOR_S": "1",
        "STREAMSRV_SESSION_RESUME_WINDOW_S": str(RESUME_WINDOW_S),
        "STREAMSRV_SERVER_DRAIN_S": str(DRAIN_S),
    }


class Alone:
    """One node on SQLite, which hands on to a webhook.

    Args:
        clock, died: handed to the nodes.
    """

    sinks: tuple[str, ...] = (SINK,)

    def __init__(
        self, plan: Plan, model: Path, folder: Path, *, clock: Callable[[], float], died: Callable[[Died], None]
    ) -> None:
        self._run = _name_of(plan)
        self._plan = plan
        self._hook = Hook(tolerance_s=CLOCKS_APART_S)
        self._shared = _settings(model)
        self.nodes = self._nodes(plan, folder, self._shared, clock, died)

    def _nodes(
        self,
        plan: Plan,
        folder: Path,
        settings: Mapping[str, str],
        clock: Callable[[], float],
        died: Callable[[Died], None],
    ) -> list[Node]:
        filled = [(fault.whom, DISKS[fault.what]) for fault in plan.faults if fault.what in DISKS]
        names = [f"node {number}" for number in range(plan.nodes)]
        return [
            Node(
                name,
                folder / name.replace(" ", "-"),
                settings,
                clock=clock,
                died=died,
                disks={disk for whom, disk in filled if whom == name},
                strict=plan.strict,
            )
            for name in names
        ]

    async def start(self) -> None:
        await self._hook.start()
        self._shared |= self._hook.settings(self._run)
        await self._start_nodes()

    async def _start_nodes(self) -> None:
        for node in self.nodes:
            await node.prepare()
        await asyncio.gather(*(node.start() for node in self.nodes))

    async def close(self) -> None:
        await self._close_nodes()
        await self._hook.close()

    async def _close_nodes(self) -> None:
        for node in self.nodes:
            node.thaw()
            await node.kill()
            await node.clear()

    @property
    def port(self) -> int:
        """Where speakers and viewers go."""
        return self.nodes[0].port

    async def harm(self, fault: Fault) -> None:
        if fault.whom != SINK:
            raise ValueError(f"there is no {fault.whom} here")
        await self._hook.harm(fault)

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        """The store as somebody who only looks opens it."""
        store = SqliteStore(SqliteSettings(data_dir=str(self.nodes[0].data)), server=False)
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    async def handed(self) -> list[Handed]:
        """What the sinks hold, once nothing waits for them any more."""
        await self._all_handed_on()
        return [handed_from(SINK, event) for event in self._hook.kept.get(self._run, [])]

    async def _all_handed_on(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + HANDED_WITHIN_S
        async with self.store() as store:
            while loop.time() < end and not await self._done(store):  # noqa: ASYNC110 -- looks into a database
                await asyncio.sleep(LOOKS_EVERY_S)

    async def _done(self, store: Store) -> bool:
        found = [await store.interview(name) for name in self._plan.interviews]
        ended = all(one is not None and one.status == "completed" for one in found)
        return ended and not any(figures.pending for figures in await store.figures())

    async def consumed(self, wanted: int) -> tuple[list[Handed], int] | None:
        """What somebody made of a sink who wants so many finals, and their lives; ``None``: nobody reads here."""
        return None

    async def left_over(self) -> list[str]:
        """When the nodes have ended: locks, leases, open work and events that should be gone."""
        found = [one for node in self.nodes for one in leftovers.of_folder(node.data)]
        found += await self._left_in_stores()
        async with self.store() as store:
            found += _undelivered(await store.figures())
        return found + self._hook.complaints

    async def _left_in_stores(self) -> list[str]:
        return list(leftovers.of_sqlite(self.nodes[0].data))


class Pair(Alone):
    """Two nodes on MongoDB and Redis behind a balancer, which hand on to Kafka, a Redis stream and a webhook."""

    def __init__(
        self,
        plan: Plan,
        model: Path,
        folder: Path,
        services: Services,
        *,
        clock: Callable[[], float],
        died: Callable[[Died], None],
    ) -> None:
        from tests.adversity.runs.services import SINKS

        self.sinks = SINKS
        self._run = _name_of(plan)
        self._plan = plan
        self._services = services
        self._hook = services.hook
        self.nodes = self._nodes(plan, folder, _settings(model) | services.settings(self._run), clock, died)
        self._balancer = Balancer([node.port for node in self.nodes])
        self._reader = Reader(folder, services.reading(plan.consumer, self._run)) if plan.consumer else None

    async def start(self) -> None:
        await self._services.mend()
        await self._start_nodes()
        await self._balancer.start()
        if self._reader is not None:
            self._reader.start()

    async def close(self) -> None:
        if self._reader is not None:
            await self._reader.close()
        await self._balancer.close()
        await self._close_nodes()
        await self._services.forget(self._run)

    @property
    def port(self) -> int:
        return self._balancer.line.port

    async def harm(self, fault: Fault) -> None:
        kind, _, number = fault.whom.partition(" ")
        if kind == "way":
            return await harm_line(self._balancer.ways[int(number)], fault.what, fault.lasts_s)
        if kind == "consumer" and self._reader is not None:
            return self._reader.kill() if fault.what == "kill" else self._reader.rewind()
        await self._services.harm(fault)

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        from streamsrv.stores.mongo.settings import MongoSettings
        from streamsrv.stores.mongo.store import MongoStore

        settings = MongoSettings(url=self._services.mongo_url, database=self._run, start_within_s=5.0)
        store = MongoStore(settings, server=False)
        await store.open()
        store.hand_to(self.sinks)
        try:
            yield store
        finally:
            await store.close()

    async def handed(self) -> list[Handed]:
        await self._all_handed_on()
        if self._reader is not None:
            self._reader.kill()  # once more, when all is there
        return await self._services.handed(self._run)

    async def consumed(self, wanted: int) -> tuple[list[Handed], int] | None:
        if self._reader is None:
            return None
        return await self._reader.consumed(wanted), self._reader.lives

    async def _done(self, store: Store) -> bool:
        """What a writer announced that died in the middle is taken away by those who read."""
        return await super()._done(store) and not await self._services.announced(self._run)

    async def _left_in_stores(self) -> list[str]:
        return await self._services.left_over(self._run, nodes=len(self.nodes))


def _name_of(plan: Plan) -> str:
    return f"run-{plan.seed}-{secrets.token_hex(4)}"


def _undelivered(figures: Sequence[SinkFigures]) -> list[str]:
    return [
        f"{one.pending} events wait for {one.sink}, {one.dead} are given up"
        for one in figures
        if one.pending or one.dead
    ]
