"""Runs a plan against real processes and writes the ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from streamsrv.errors import StreamsrvError
from streamsrv.stores.base import TranscriptStore
from tests.adversity.runs.harms import harm_line
from tests.adversity.runs.ledger import Ledger, Row, Snapshot, Speaking
from tests.adversity.runs.lines import Line, to_port
from tests.adversity.runs.node import Node
from tests.adversity.runs.plan import Fault, Plan
from tests.adversity.runs.services import Services
from tests.adversity.runs.site import Alone, Pair
from tests.adversity.runs.speaker import speak
from tests.adversity.runs.viewer import watch

OVER_WITHIN_S = 60.0
"""A run that has not ended by then never will."""
SEEN_WITHIN_S = 8.0
"""A viewer that has not seen every final by then never will."""


class Stage:
    """One run.

    Args:
        plan: what happens.
        model: folder of the Whisper that hears.
        folder: for data and logs; made.
        services: what a pair of nodes stands on.
    """

    def __init__(self, plan: Plan, model: Path, folder: Path, services: Services | None = None) -> None:
        self.ledger = Ledger(plan=plan, speaking=[Speaking() for _ in plan.voices])
        self._plan = plan
        self._created = self._begun = time.monotonic()
        died = self.ledger.died.append
        if services is None:
            self._site = Alone(plan, model, folder, clock=self._clock, died=died)
        else:
            self._site = Pair(plan, model, folder, services, clock=self._clock, died=died)
        self._lines: list[Line] = []
        self._busy: dict[str, asyncio.Lock] = {}

    async def run(self) -> Ledger:
        """Everything, from the first process to the last look around."""
        try:
            await self._site.start()
            lines = len(self._plan.voices) + 1  # the last one is the viewer's
            self._lines = [await Line(to_port(self._site.port)).start() for _ in range(lines)]
            self._took("start")
            await self._play()
            self._took("play")
            await self._look_around()
        finally:
            for line in self._lines:
                await line.close()
            await self._site.close()
        self._took("end")
        return self.ledger

    def _took(self, part: str) -> None:
        whole = time.monotonic() - self._created
        self.ledger.seconds[part] = round(whole - sum(self.ledger.seconds.values()), 2)

    def _clock(self) -> float:
        return time.monotonic() - self._begun

    async def _play(self) -> None:
        self._begun = time.monotonic()
        voices = zip(self._plan.voices, self._lines[:-1], self.ledger.speaking, strict=True)
        speaking = [asyncio.create_task(speak(voice, line.port, noted, self._clock)) for voice, line, noted in voices]
        harm = asyncio.create_task(self._harm())
        watched, port = self.ledger.watched, self._lines[-1].port
        watching = asyncio.create_task(watch(self._plan.watched, port, watched, self._clock))
        try:
            async with asyncio.timeout(OVER_WITHIN_S):
                await asyncio.gather(harm, *speaking)
            await self._seen()
        except TimeoutError:
            for noted in self.ledger.speaking:
                if noted.ended == "never":
                    noted.ended = f"not within {OVER_WITHIN_S:g} s"
        finally:
            for task in (harm, watching, *speaking):
                task.cancel()
            await asyncio.gather(harm, watching, *speaking, return_exceptions=True)

    async def _seen(self) -> None:
        """Give the viewer time to see what the speakers were told."""
        wanted = {
            shown.key
            for voice, one in zip(self._plan.voices, self.ledger.speaking, strict=True)
            for shown in one.shown
            if voice.interview == self._plan.watched
        }
        end = self._clock() + SEEN_WITHIN_S
        while not wanted <= {shown.key for shown in self.ledger.watched} and self._clock() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    # --- what goes wrong ----------------------------------------------------------------------------------------

    async def _harm(self) -> None:
        """Each fault at its time, side by side; but one node at a time, and one fault at a time of each service."""
        async with asyncio.TaskGroup() as faults:
            for fault in self._plan.faults:
                faults.create_task(self._do(fault))

    async def _do(self, fault: Fault) -> None:
        await asyncio.sleep(max(0.0, fault.at_s - self._clock()))
        kind, _, number = fault.whom.partition(" ")
        if kind == "line":
            return await harm_line(self._lines[int(number)], fault.what, fault.lasts_s)
        async with self._busy.setdefault(kind, asyncio.Lock()):
            await (self._harm_node(self._site.nodes[int(number)], fault) if number else self._site.harm(fault))

    async def _harm_node(self, node: Node, fault: Fault) -> None:
        match fault.what:
            case "kill" | "term":
                await (node.kill() if fault.what == "kill" else node.term())
                await self._snapshot(f"{node.name} ended by {fault.what}")
                await asyncio.sleep(fault.lasts_s)
                await node.start()
            case "wipe":  # what must be found out: the data is gone
                await node.kill()
                node.wipe()
                await node.start()
            case "freeze":
                node.freeze()
                await asyncio.sleep(fault.lasts_s)
                node.thaw()
            case "disk_full":
                await node.fill()
                await asyncio.sleep(fault.lasts_s)
                node.empty()
            case other:
                raise ValueError(f"nobody knows how to {other} a node")

    # --- what is known ------------------------------------------------------------------------------------------

    async def _snapshot(self, why: str) -> None:
        """What others can read now; nothing when the store is away at this moment."""
        at = self._clock()
        try:
            async with self._site.store() as store:
                rows = await _rows(store, self._plan.interviews)
                restarts = await _restarts(store, self._plan.interviews)
        except StreamsrvError:
            return
        self.ledger.snapshots.append(Snapshot(at=at, why=why, rows=rows, restarts=restarts))

    async def _look_around(self) -> None:
        """When all have spoken: the store, the sinks, and whether anything is left that should be gone."""
        ledger, site = self.ledger, self._site
        ours = {one.stream for one in ledger.speaking}
        ledger.sinks, ledger.handed = list(site.sinks), await site.handed()
        self._took("hand on")
        for node in site.nodes:
            if sessions := await node.metric("streamsrv_sessions"):
                ledger.left_over.append(f"{sessions:g} sessions on {node.name}")
            if spooled := await node.metric("streamsrv_spool_finals"):
                ledger.left_over.append(f"{spooled:g} finals in the spool of {node.name}")
        await asyncio.gather(*(node.term() for node in site.nodes))
        async with site.store() as store:
            ledger.rows = await _rows(store, self._plan.interviews)
            streams = [one for name in self._plan.interviews for one in await store.streams(name) if one.id in ours]
            ledger.left_over += [f"stream {one.id} is still live" for one in streams if one.status == "live"]
            ledger.left_over += [f"job {job.id} is still open" for job in await store.open_jobs()]
        ledger.left_over += await site.left_over()
        for node in site.nodes:
            ledger.left_over += [f"process {pid} of {node.name}" for pid in node.orphans()]
            ledger.complaints += node.complaints(self._expected())

    def _expected(self) -> set[str]:
        """Events of level error that the faults of this run bring about."""
        return {"spool.failed"} if any(fault.what == "disk_full" for fault in self._plan.faults) else set()


async def _rows(store: TranscriptStore, interviews: Sequence[str]) -> list[Row]:
    return [
        Row(
            interview=interview,
            stream=kept.stream,
            epoch=kept.epoch,
            channel=kept.final.channel,
            segment=kept.final.segment,
            text=kept.final.text,
            start=kept.final.start,
            stop=kept.final.stop,
        )
        for interview in interviews
        for kept in await store.finals(interview)
    ]


async def _restarts(store: TranscriptStore, interviews: Sequence[str]) -> dict[str, list[int]]:
    streams = [one for interview in interviews for one in await store.streams(interview)]
    return {one.id: list(one.restarts) for one in streams}
