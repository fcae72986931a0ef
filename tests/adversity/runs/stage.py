"""Runs a plan against real processes and writes the ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from streamsrv.stores.base import TranscriptStore
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.adversity.runs.ledger import Ledger, Row, Snapshot, Speaking
from tests.adversity.runs.lines import Line, to_port
from tests.adversity.runs.node import Node
from tests.adversity.runs.plan import Fault, Plan
from tests.adversity.runs.speaker import speak
from tests.adversity.runs.viewer import watch

OVER_WITHIN_S = 60.0
"""A run that has not ended by then never will."""
SEEN_WITHIN_S = 8.0
"""A viewer that has not seen every final by then never will."""
RESUME_WINDOW_S = 10.0
DRAIN_S = 3.0
THROTTLE_BYTES_PER_S = 40_000.0
DELAY_S = 0.15


class Stage:
    """One run.

    Args:
        plan: what happens.
        model: folder of the Whisper that hears.
        folder: for data and logs; made.
    """

    def __init__(self, plan: Plan, model: Path, folder: Path) -> None:
        self.ledger = Ledger(plan=plan, speaking=[Speaking() for _ in plan.voices])
        self._plan = plan
        self._folder = folder
        self._begun = time.monotonic()
        settings = {
            "STREAMSRV_ENGINE_NAME": "whisper",
            "STREAMSRV_ENGINE_MODEL": str(model),
            "STREAMSRV_WHISPER_CPU_THREADS": "1",
            "STREAMSRV_WHISPER_NUM_WORKERS": "1",
            "STREAMSRV_WHISPER_WINDOW_FLOOR_S": "1",
            "STREAMSRV_SESSION_RESUME_WINDOW_S": str(RESUME_WINDOW_S),
            "STREAMSRV_SERVER_DRAIN_S": str(DRAIN_S),
        }
        fills = any(fault.what == "disk_full" for fault in plan.faults)
        self._node = Node(
            "node 0", folder / "node-0", settings, clock=self._clock, died=self.ledger.died.append, disk=fills
        )
        self._lines: list[Line] = []

    async def run(self) -> Ledger:
        """Everything, from the first process to the last look around."""
        started = time.monotonic()
        await self._node.prepare()
        try:
            await self._node.start()
            lines = len(self._plan.voices) + 1  # the last one is the viewer's
            self._lines = [await Line(to_port(self._node.port)).start() for _ in range(lines)]
            await self._play()
            await self._look_around()
        finally:
            for line in self._lines:
                await line.close()
            self._node.thaw()
            await self._node.kill()
            await self._node.clear()
        self.ledger.seconds = round(time.monotonic() - started, 2)
        return self.ledger

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
        """Each fault at its time; those that last end in the background."""
        async with asyncio.TaskGroup() as lasting:
            for fault in self._plan.faults:
                await asyncio.sleep(max(0.0, fault.at_s - self._clock()))
                if fault.whom.startswith("line"):
                    lasting.create_task(self._harm_line(fault))
                else:
                    await self._harm_node(fault)

    async def _harm_line(self, fault: Fault) -> None:
        line = self._lines[int(fault.whom.split()[1])]
        match fault.what:
            case "cut":
                for connection in line.connections:
                    connection.reset()
            case "close":
                for connection in line.connections:
                    connection.close()
            case "half_up" | "half_down":
                for connection in line.connections:
                    connection.half_close("up" if fault.what == "half_up" else "down")
            case "refuse":
                line.refusing = True
                for connection in line.connections:
                    connection.reset()
                await asyncio.sleep(fault.lasts_s)
                line.refusing = False
            case "hole":
                for connection in line.connections:
                    connection.hold()
            case "stall":
                await self._stall(line, fault.lasts_s)
            case "throttle" | "delay":
                for connection in line.connections:
                    connection.bytes_per_s = THROTTLE_BYTES_PER_S if fault.what == "throttle" else None
                    connection.delay_s = DELAY_S if fault.what == "delay" else 0.0
                await asyncio.sleep(fault.lasts_s)
                for connection in line.connections:
                    connection.bytes_per_s, connection.delay_s = None, 0.0
            case other:
                raise ValueError(f"nobody knows how to {other} a line")

    async def _stall(self, line: Line, lasts_s: float) -> None:
        """Newcomers too; afterwards all goes on as if nothing had been."""
        line.holding = True
        stalled = line.connections
        for connection in stalled:
            connection.hold()
        await asyncio.sleep(lasts_s)
        line.holding = False
        for connection in line.connections:
            connection.let_go()

    async def _harm_node(self, fault: Fault) -> None:
        node = self._node
        match fault.what:
            case "kill" | "term":
                await (node.kill() if fault.what == "kill" else node.term())
                await self._snapshot(f"{fault.whom} ended by {fault.what}")
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
        at = self._clock()
        async with _opened(SqliteSettings(data_dir=str(self._node.data))) as store:
            rows = await _rows(store, self._plan.interviews)
            restarts = await _restarts(store, self._plan.interviews)
        self.ledger.snapshots.append(Snapshot(at=at, why=why, rows=rows, restarts=restarts))

    async def _look_around(self) -> None:
        """When all have spoken: the store, and whether anything is left that should be gone."""
        ledger, node = self.ledger, self._node
        ours = {one.stream for one in ledger.speaking}
        if sessions := await node.metric("streamsrv_sessions"):
            ledger.left_over.append(f"{sessions:g} sessions on {node.name}")
        await node.term()
        async with _opened(SqliteSettings(data_dir=str(node.data))) as store:
            ledger.rows = await _rows(store, self._plan.interviews)
            streams = [one for name in self._plan.interviews for one in await store.streams(name) if one.id in ours]
            ledger.left_over += [f"stream {one.id} is still live" for one in streams if one.status == "live"]
            ledger.left_over += [f"job {job.id} is still open" for job in await store.open_jobs()]
        owner = SqliteStore(SqliteSettings(data_dir=str(node.data)))
        await owner.open()  # refuses when a lock is left
        await owner.close()
        ledger.left_over += [f"process {pid} of {node.name}" for pid in node.orphans()]
        ledger.complaints += node.complaints()


class _opened:
    """The store as somebody who only looks opens it."""

    def __init__(self, settings: SqliteSettings) -> None:
        self._store = SqliteStore(settings, server=False)

    async def __aenter__(self) -> TranscriptStore:
        await self._store.open()
        return self._store

    async def __aexit__(self, *_: object) -> None:
        await self._store.close()


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
