"""Runs a plan against real processes and writes the ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from streamsrv.errors import StreamsrvError
from streamsrv.stores.base import PlacedFinal, TranscriptStore
from tests.adversity.runs import nursery, served
from tests.adversity.runs.harms import harm_line
from tests.adversity.runs.knock import ask, knock
from tests.adversity.runs.leaver import leave
from tests.adversity.runs.ledger import Leaving, Ledger, Row, Sending, Snapshot, Speaking, Watching
from tests.adversity.runs.lines import Line, to_port
from tests.adversity.runs.node import DISKS, Node
from tests.adversity.runs.odds import RIVALS
from tests.adversity.runs.plan import Fault, Knock, Plan
from tests.adversity.runs.rivals import usurp
from tests.adversity.runs.sender import send, speaker_of
from tests.adversity.runs.services import Services
from tests.adversity.runs.site import RESUME_WINDOW_S, Alone, Pair
from tests.adversity.runs.speaker import Noting, speak
from tests.adversity.runs.spoil import refuse_spoiled
from tests.adversity.runs.spooled import spooled_in
from tests.adversity.runs.viewer import watch

OVER_WITHIN_S = 60.0
"""A run that has not ended by then never will."""
OVERDUE_S = 45.0
"""Each time so much has passed, every process of the run writes where it is into the run's folder."""
SEEN_WITHIN_S = 8.0
"""A viewer that has not seen every final by then never will."""
JOBS_WITHIN_S = 20.0
"""Files that are not heard by then never will be."""
STALE_WITHIN_S = RESUME_WINDOW_S + 1.0
"""A session beside a newer one on another node, unheard and without its speaker, waits for that one for so long."""
LOOKS_EVERY_S = 0.1
PAGE = 500
"""Finals read from the store at once."""
JUMPS_S = {"ahead": 3_600, "behind": -3_600}


class Stage:
    """One run.

    Args:
        plan: what happens.
        model: folder of the Whisper that hears.
        folder: for data and logs; made.
        services: what a pair of nodes stands on.
    """

    def __init__(self, plan: Plan, model: Path, folder: Path, services: Services | None = None) -> None:
        self.ledger = Ledger(
            plan=plan,
            speaking=[Speaking() for _ in plan.voices],
            watching=[Watching(interview=interview) for _, interview in plan.viewers],
            sending=[Sending() for _ in plan.files],
            left=[Leaving() for _ in plan.leaves],
        )
        self._plan = plan
        self._folder = folder
        self._created = self._begun = time.monotonic()
        died = self.ledger.died.append
        if services is None:
            self._site = Alone(plan, model, folder, clock=self._clock, died=died)
        else:
            self._site = Pair(plan, model, folder, services, clock=self._clock, died=died)
        self._lines: list[Line] = []
        self._busy: dict[str, asyncio.Lock] = {}
        self._streams: dict[int, Noting] = {}
        """Those of the speakers that were let in."""

    async def run(self) -> Ledger:
        """Everything, from the first process to the last look around."""
        watchdog = asyncio.create_task(self._tell_stacks())
        try:
            async with nursery.current().starting:
                self._created = time.monotonic()
                await self._site.start()
            self._lines = [await Line(to_port(self._site.port)).start() for _ in range(self._plan.lines)]
            self._took("start")
            await self._play()
            self._took("play")
            await self._look_around()
        finally:
            for line in self._lines:
                await line.close()
            await self._site.close()
            watchdog.cancel()
        self._took("end")
        return self.ledger

    async def _tell_stacks(self) -> None:
        """While the run lasts too long: where it is, and its nodes are."""
        while True:
            await asyncio.sleep(OVERDUE_S)
            with (self._folder / "run.stacks").open("a", encoding="utf-8") as file:
                served.write_tasks(file)
            for node in self._site.nodes:
                node.tell_stacks()

    def _took(self, part: str) -> None:
        whole = time.monotonic() - self._created
        self.ledger.seconds[part] = round(whole - sum(self.ledger.seconds.values()), 2)

    def _clock(self) -> float:
        return time.monotonic() - self._begun

    async def _play(self) -> None:
        self._begun = time.monotonic()
        harm = asyncio.create_task(self._harm())
        saying = [asyncio.create_task(one) for one in (*self._speakers(), *self._senders(), *self._leavers())]
        watching = [asyncio.create_task(one) for one in (*self._viewers(), *self._knocks())]
        try:
            async with asyncio.timeout(OVER_WITHIN_S):
                await asyncio.gather(harm, *saying)
            await self._seen()
        except TimeoutError:
            everybody: list[Speaking | Sending] = [*self.ledger.speaking, *self.ledger.sending]
            for noted in everybody:
                if noted.ended == "never":
                    noted.ended = f"not within {OVER_WITHIN_S:g} s"
        finally:
            for task in (harm, *saying, *watching):
                task.cancel()
            await asyncio.gather(harm, *saying, *watching, return_exceptions=True)

    def _speakers(self) -> Iterator[Coroutine[None, None, None]]:
        for number, (voice, noted) in enumerate(zip(self._plan.voices, self.ledger.speaking, strict=True)):
            seat = partial(self._streams.__setitem__, number)
            yield speak(voice, self._lines[number].port, noted, self._clock, seat)

    def _leavers(self) -> Iterator[Coroutine[None, None, None]]:
        for planned, noted in zip(self._plan.leaves, self.ledger.left, strict=True):
            yield leave(planned, self._site.port, noted, self._clock)

    def _viewers(self) -> Iterator[Coroutine[None, None, None]]:
        lines = self._lines[len(self._plan.voices) :]
        for (kind, _), line, noted in zip(self._plan.viewers, lines, self.ledger.watching, strict=False):
            yield watch(kind, noted, line.port, self._clock)

    async def _knock(self, planned: Knock) -> None:
        def tokens() -> Iterator[str]:
            for number, stream in self._streams.items():
                if stream.ready is not None and self._plan.voices[number].interview != planned.interview:
                    yield stream.ready.resume_token

        if answered := await knock(planned, self._site.port, tokens):
            self.ledger.knocked.append(answered)

    def _knocks(self) -> Iterator[Coroutine[None, None, None]]:
        yield from map(self._knock, self._plan.knocks)

    async def _send(self, number: int, noted: Sending) -> None:
        file = self._plan.files[number]
        await asyncio.sleep(file.at_s)
        await send(file, number, self._lines[-1].port, noted)

    def _senders(self) -> Iterator[Coroutine[None, None, None]]:
        for number, noted in enumerate(self.ledger.sending):
            yield self._send(number, noted)

    async def _seen(self) -> None:
        """Give files that nobody was told of time to be heard, and then the viewers to see all that is stored."""
        nodes = self._site.nodes
        try:
            async with asyncio.timeout(JOBS_WITHIN_S):
                while any([await node.jobs() for node in nodes]):  # noqa: ASYNC110 -- asks a server
                    await asyncio.sleep(LOOKS_EVERY_S)
        except TimeoutError:
            return  # they are found as left over
        async with self._site.store() as store:
            rows = await _rows(store, self._plan.interviews)
        end = self._clock() + SEEN_WITHIN_S
        for noted in self.ledger.watching:
            wanted = {row.key for row in rows if row.interview == noted.interview}
            while not wanted <= {shown.key for shown in noted.shown} and self._clock() < end:  # noqa: ASYNC110
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
        if kind == "speaker":
            return await self._usurp(int(number), fault)
        node = self._site.nodes[int(number)] if kind == "node" else None
        if node is not None and fault.what in JUMPS_S:
            return await self._jump(node, fault)
        async with self._busy.setdefault(fault.place, asyncio.Lock()):
            await (self._site.harm(fault) if node is None else self._harm_node(node, fault))

    async def _usurp(self, number: int, fault: Fault) -> None:
        """A stream that is not begun yet cannot be taken."""
        if stream := self._streams.get(number):
            count = RIVALS[fault.what]
            self.ledger.rivals += await usurp(stream, count, self._site.port, fault.lasts_s, self._clock)

    async def _jump(self, node: Node, fault: Fault) -> None:
        """Whatever else befalls the node: a life that begins meanwhile has a right clock."""
        node.jump(JUMPS_S[fault.what])
        if fault.lasts_s:  # else it stays wrong
            await asyncio.sleep(fault.lasts_s)
            node.jump(0)

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
            case "garble" | "age":
                await node.kill()
                await self._snapshot(f"{node.name} ended by kill")
                self.ledger.refused.append(await refuse_spoiled(node, fault.what))
                await node.start()
            case "freeze":
                node.freeze()
                await asyncio.sleep(fault.lasts_s)
                node.thaw()
            case what if what in DISKS:
                await node.fill(DISKS[what])
                await asyncio.sleep(fault.lasts_s)
                self.ledger.filled[what] = node.empty(DISKS[what])
            case other:
                raise ValueError(f"nobody knows how to {other} a node")

    # --- what is known ------------------------------------------------------------------------------------------

    async def _snapshot(self, why: str) -> None:
        """What others can read now; of the store nothing when it is away at this moment."""
        at = self._clock()
        found = Snapshot(at=at, why=why, spooled=[one for node in self._site.nodes for one in spooled_in(node.data)])
        try:
            async with self._site.store() as store:
                rows = await _rows(store, self._plan.interviews)
                streams = [one for interview in self._plan.interviews for one in await store.streams(interview)]
        except StreamsrvError:
            found = msgspec.structs.replace(found, readable=False)
        else:
            restarts = {one.id: list(one.restarts) for one in streams}
            epochs = {one.id: one.epochs[-1].epoch for one in streams}
            found = msgspec.structs.replace(found, rows=rows, restarts=restarts, epochs=epochs)
        self.ledger.snapshots.append(found)

    async def _look_around(self) -> None:
        """When all have spoken: the store, the sinks, and whether anything is left that should be gone."""
        ledger, site = self.ledger, self._site
        ledger.sinks, ledger.handed = list(site.sinks), await site.handed()
        await self._come_late()
        self._took("hand on")
        for node in site.nodes:
            if sessions := await self._sessions_that_stay(node):
                ledger.left_over.append(f"{sessions:g} sessions on {node.name}")
            if spooled := await node.metric("streamsrv_spool_finals"):
                ledger.left_over.append(f"{spooled:g} finals in the spool of {node.name}")
            if jobs := await node.jobs():
                ledger.left_over.append(f"{jobs:g} jobs on {node.name}")
        await asyncio.gather(*(node.term() for node in site.nodes))
        async with site.store() as store:
            ledger.rows = await _rows(store, self._plan.interviews)
            ledger.order = {name: await _order(store, name) for name in self._plan.interviews}
            streams = [one for name in self._plan.interviews for one in await store.streams(name)]
        if read := await site.consumed(len(ledger.rows)):
            ledger.consumed, ledger.consumer_lives = read
        for number, noted in enumerate(ledger.sending):
            noted.streams = [one.id for one in streams if one.options.speaker == speaker_of(number)]
        ours = {one.stream for one in ledger.speaking} | {one for noted in ledger.sending for one in noted.streams}
        live = [one.id for one in streams if one.status == "live" and one.id in ours]
        ledger.left_over += [f"stream {name} is still live" for name in live]
        ledger.left_over += await site.left_over()
        for node in site.nodes:
            ledger.left_over += [f"process {pid} of {node.name}" for pid in await node.orphans()]
            ledger.complaints += node.complaints(self._expected())

    async def _come_late(self) -> None:
        """A stream that has ended is not resumed, whoever asks."""
        asked = [
            ask(self._plan.voices[number].interview, stream.ready.resume_token, self._site.port, self._clock())
            for number, stream in self._streams.items()
            if stream.ready is not None
        ]
        self.ledger.late += [answered for answered in await asyncio.gather(*asked) if answered]

    async def _sessions_that_stay(self, node: Node) -> float:
        """One whose speaker went to another node, unheard, is found out at a look of its node."""
        end = self._clock() + STALE_WITHIN_S
        while (sessions := await node.metric("streamsrv_sessions")) and self._clock() < end:  # noqa: ASYNC110
            await asyncio.sleep(LOOKS_EVERY_S)
        return sessions

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


async def _order(store: TranscriptStore, interview: str) -> list[tuple[str, int, int]]:
    """What its finals are known by, as they were stored."""
    found: list[PlacedFinal] = []
    while page := await store.finals_since(interview, found[-1].place if found else 0, limit=PAGE):
        found += page
    return [(one.stream, one.final.channel, one.final.segment) for one in found]
