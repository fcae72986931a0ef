"""A driver with real front and real machine, a known engine, a store in memory and a clock wound by hand."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from streamsrv import commands, events, telemetry
from streamsrv.commands import Options
from streamsrv.facts import ChannelStart
from streamsrv.runtime.driver import Driver
from streamsrv.runtime.engines import Engines
from streamsrv.runtime.fanout import Fanout
from streamsrv.runtime.recorder import Recording, Warn
from streamsrv.runtime.settings import SpoolSettings
from streamsrv.runtime.spool import Spool
from streamsrv.session.settings import MachineSettings
from streamsrv.stores.base import StreamKey
from tests.support.engines import CountingEngine
from tests.support.memory import MemoryStore

STEP_S = 0.1


class Ear:
    """An outlet that remembers."""

    def __init__(self) -> None:
        self.heard: list[events.AnyEvent] = []
        self.closed: tuple[int, str] | None = None

    def put(self, event: events.AnyEvent) -> None:
        self.heard.append(event)

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    @property
    def finals(self) -> list[events.Final]:
        return [event for event in self.heard if isinstance(event, events.Final)]


class Services:
    def __init__(self, spool: Path) -> None:
        self.store = MemoryStore()
        self.metrics = telemetry.Metrics("test")
        self.spool = Spool(spool, SpoolSettings(), self.store, self.metrics)
        self.fanout = Fanout(self.store, self.metrics, most=10)
        self.clock = 1_000.0

    def check(self, options: Options) -> None:
        pass

    def record(self, key: StreamKey, options: Options, begins: int, warn: Warn) -> Recording | None:
        return None

    def now(self) -> float:
        return self.clock

    def utc_ms(self) -> int:
        return round(self.clock * 1_000)


class Stage:
    """One speaker; ``spool`` is used once it is started."""

    def __init__(
        self,
        *,
        settings: MachineSettings | None = None,
        options: Options | None = None,
        spool: Path = Path("never-started"),
    ) -> None:
        self.services = Services(spool)
        self.engine = CountingEngine()
        self.engines = Engines([self.engine], self.services.metrics)
        self.settings = settings or MachineSettings()
        self.options = options or Options()
        self.peer = Ear()
        self.left = 0
        self.token = b"hash"
        self.driver: Driver

    async def begin(self) -> Stage:
        await self.services.store.begin_stream(
            interview="i", stream="s", token_hash=self.token, options=self.options, engine="counting", now_ms=0
        )
        self.drive(StreamKey(interview="i", stream="s", epoch=1), (ChannelStart(),) * self.options.tracks)
        return self

    async def resume(self) -> None:
        """A new connection takes the stream over."""
        resumed = await self.services.store.resume_stream("s", self.token, now_ms=0)
        self.peer = Ear()
        self.drive(resumed.key, resumed.starts, resumed.finals)

    def drive(self, key: StreamKey, starts: tuple[ChannelStart, ...], finals: tuple[events.Final, ...] = ()) -> None:
        self.driver = Driver(
            self.services,
            self.settings,
            key,
            options=self.options,
            make_ear=partial(self.engines.ear, self.engine),
            about=self.engine.about,
            starts=starts,
            finals=finals,
            left=self._left,
        )
        self.driver.open(self.peer)

    def _left(self, driver: Driver) -> None:
        self.left += 1

    async def send(self, audio: bytes, *, step_s: float = STEP_S) -> None:
        """At the pace of the wound clock; engine and store get their turns."""
        size = int(step_s * self.options.sample_rate) * 2 * self.options.channels
        for at in range(0, len(audio), size):
            self.services.clock += step_s
            await self.driver.audio(audio[at : at + size])
            await self.rest()

    async def order(self, command: commands.AnyCommand) -> None:
        await self.driver.command(command)
        await self.rest()

    async def rest(self) -> None:
        """Let everything that can run, run."""
        for _ in range(20):
            await asyncio.sleep(0)
