"""Drives one session: owns the front (ring and bytes), carries out the machine's effects, sets its alarm.

The only place where audio, machine, ear, store and peer meet.  Everything runs on the event loop and never waits in
it: hearing and storing are tasks, and audio that finds no room waits with the socket unread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal, Protocol, TypeAlias

from streamsrv import commands, events, telemetry
from streamsrv.audio.front import Front
from streamsrv.commands import AnyCommand, Options
from streamsrv.engines.base import About
from streamsrv.errors import StreamsrvError
from streamsrv.events import AnyEvent
from streamsrv.facts import RATE_HZ, Answer, ChannelStart, CutMade, Receipt
from streamsrv.runtime.ear import Ear, MakeEar
from streamsrv.runtime.keeper import Keeper
from streamsrv.session.effects import (
    AnyEffect,
    Close,
    Cut,
    Forget,
    Hear,
    Hold,
    Keep,
    Leave,
    Note,
    Release,
    Say,
    Settle,
)
from streamsrv.session.machine import Machine
from streamsrv.session.settings import MachineSettings
from streamsrv.session.states import TAKES_AUDIO, State
from streamsrv.stores.base import Anchor, StreamKey, StreamStats, TranscriptStore

RING_S = 60
"""Audio held per channel at most; when less than ``LOW_S`` is free, reading pauses."""
LOW_S = 5
SLICE_S = 0.5
"""Longest audio decided in one go: a 1 MiB message must not hold the event loop."""
ANCHOR_PAUSE_S = 2.0
"""Pause in arrival after which positions are tied to the wall clock again."""


class Outlet(Protocol):
    """The peer's end: where events go.  Never waits."""

    def put(self, event: AnyEvent) -> None: ...

    def close(self, code: int, reason: str) -> None:
        """Close after everything put before."""


class Services(Protocol):
    """What all drivers of a server share."""

    @property
    def store(self) -> TranscriptStore: ...
    @property
    def metrics(self) -> telemetry.Metrics: ...
    def now(self) -> float:
        """Monotonic seconds."""

    def utc_ms(self) -> int: ...


class Driver:
    """One session of one stream; its public methods are called by one reader task.

    Args:
        services: store, metrics and clocks.
        settings: the machine's.
        key: names the epoch this session owns.
        about: the engine, for the greeting.
        make_ear: makes what hears for it, for given options.
        starts: where each channel begins.
        finals: a resumed stream's finals so far.
        left: called once, when the session is over.

    Raises:
        UnsupportedLanguage: the engine does not know the language asked for.
    """

    def __init__(
        self,
        services: Services,
        settings: MachineSettings,
        key: StreamKey,
        *,
        options: Options,
        make_ear: MakeEar,
        about: About,
        starts: tuple[ChannelStart, ...],
        finals: tuple[events.Final, ...] = (),
        left: Callable[[Driver], None],
    ) -> None:
        self.key = key
        self.about = about
        self.outlet: Outlet | None = None
        self._services = services
        self._make_ear = make_ear
        self._left = left
        self._hear_by(Front(options, ring_s=RING_S, starts=starts))
        self._ear = self._new_ear(options)
        self.machine = Machine(
            settings,
            options=options,
            epoch=key.epoch,
            resume_at=self._front.resume_at,
            starts=starts,
            finals=finals,
            now=services.now(),
        )
        self._keeper = Keeper(
            services.store,
            key,
            restarts=tuple(start.restart for start in starts),
            stored=self._stored,
            troubled=lambda away: self._trouble("store", away),
            stats=self._stats,
            utc_ms=services.utc_ms,
        )
        self._alarm: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()
        self._arrived_at: float | None = None
        self._troubles: set[Reason] = set()
        self._log = telemetry.logger("session").bind(interview=key.interview, stream=key.stream, epoch=key.epoch)

    # --- what the reader calls ----------------------------------------------------------------------------------

    def open(self, outlet: Outlet) -> None:
        """Greet the peer."""
        self.outlet = outlet
        self._services.metrics.sessions.inc()
        self._log.info("session.opened", engine=self.about.name)
        self._run(self.machine.open())
        self._set_alarm()

    def part(self, outlet: Outlet) -> None:
        """This peer's connection is gone; the session may live on."""
        if self.outlet is outlet:
            self.outlet = None

    async def audio(self, data: bytes) -> None:
        """Take audio; returns when the ring has room for more.  Audio after the end is ignored."""
        machine = self.machine
        if machine.state is not State.LIVE and machine.state not in TAKES_AUDIO:  # the usual state first: it is cheap
            return
        now = self._services.now()
        machine.last_heard = now
        if machine.state is State.OPEN:
            self._run(machine.receive(commands.Audio(data=b""), now))
        if self._arrived_at is None or now - self._arrived_at > ANCHOR_PAUSE_S:
            self._keeper.anchor(Anchor(position=self._front.position, utc_ms=self._services.utc_ms()))
        self._arrived_at = now
        if len(data) <= self._slice:
            self._feed(data, now)
        else:
            await self._feed_long(memoryview(data), self._slice)
        self._spare -= len(data)
        if self._spare < 0:
            if self._front.room < LOW_S * RATE_HZ:
                await self._wait_for_room()
            self._spare = self._spare_bytes()

    async def command(self, command: AnyCommand) -> None:
        """Obey the peer, or the server."""
        now = self._services.now()
        self.machine.last_heard = now
        if isinstance(command, commands.Configure) and not await self._configure(command.options):
            return
        self._run(self.machine.receive(command, now))
        self._set_alarm()

    def order(self, command: AnyCommand) -> None:
        """As ``command``, for what the server itself orders: drain, abort, supersede, disconnect."""
        self._run(self.machine.receive(command, self._services.now()))
        self._set_alarm()

    # --- audio --------------------------------------------------------------------------------------------------

    def _hear_by(self, front: Front) -> None:
        """Use this front from now on."""
        self._front = front
        self._slice = int(front.bytes_per_second * SLICE_S)
        self._spare = self._spare_bytes()

    def _spare_bytes(self) -> int:
        """Bytes that surely fit before reading must pause: so long nobody needs to look at the ring."""
        return (self._front.room - LOW_S * RATE_HZ) * self._front.bytes_per_second // RATE_HZ

    def _feed(self, data: bytes | memoryview, now: float) -> None:
        for mark in self._front.feed(data, now):
            self._run(self.machine.marked(mark, now))

    async def _feed_long(self, data: memoryview, size: int) -> None:
        for at in range(0, len(data), size):
            if self._front.room < LOW_S * RATE_HZ:
                await self._wait_for_room()
            if self.machine.state not in TAKES_AUDIO:
                return
            self._feed(data[at : at + size], self._services.now())
            await asyncio.sleep(0)

    async def _wait_for_room(self) -> None:
        """Back-pressure: the caller does not read the socket meanwhile."""
        self._trouble("buffer", True)
        while self._front.room < LOW_S * RATE_HZ and self.machine.state in TAKES_AUDIO:
            self._room.clear()
            await self._room.wait()
            self.machine.last_heard = self._services.now()  # a peer held up by us is not idle
        self._trouble("buffer", False)

    async def _configure(self, options: Options) -> bool:
        """Before the first audio a new configuration replaces front and ear; the store knows it first."""
        if self.machine.state is not State.OPEN or self.key.epoch > 1:
            return True
        try:
            ear = self._new_ear(options)
            await self._services.store.configure_stream(self.key, options)
        except StreamsrvError as error:
            self.order(abortion(error))
            return False
        self._ear.close()
        self._ear = ear
        self._hear_by(Front(options, ring_s=RING_S))
        self._keeper.restarts = (0,) * options.tracks
        return True

    def _new_ear(self, options: Options) -> Ear:
        return self._make_ear(
            channels=options.tracks,
            language=options.language,
            read=lambda channel, start, stop: self._front.read(channel, start, stop),
            answered=self._answered,
            troubled=lambda away: self._trouble("engine", away),
        )

    # --- answers and receipts -----------------------------------------------------------------------------------

    def _answered(self, answer: Answer) -> None:
        self._run(self.machine.heard(answer, self._services.now()))

    def _stored(self, receipt: Receipt) -> None:
        self._run(self.machine.stored(receipt, self._services.now()))

    def _trouble(self, reason: Reason, active: bool) -> None:
        if active is (reason in self._troubles):
            return
        (self._troubles.add if active else self._troubles.discard)(reason)
        self._services.metrics.degraded.inc(1 if active else -1)
        self._log.warning("session.degraded", reason=reason, active=active)
        self._say(degraded(reason, active))

    # --- effects ------------------------------------------------------------------------------------------------

    def _run(self, effects: list[AnyEffect]) -> None:
        """Carry out effects in order; those that follow from them come after."""
        if not effects:
            return
        todo = deque(effects)
        while todo:
            match todo.popleft():
                case Say(event=event):
                    self._say(event)
                case Hear() as question:
                    self._ear.hear(question)
                case Keep() | Note() | Settle() as job:
                    self._keeper.put(job)
                case Release(channel=channel, position=position):
                    self._front.release(channel, position)
                    self._room.set()
                case Hold(channel=channel, earliest=earliest):
                    self._front.hold(channel, earliest)
                case Cut() as cut:
                    todo.extend(self._cut(cut))
                case Forget(request=request):
                    self._ear.forget(request)
                case Close(code=code, reason=reason):
                    self._close(code, reason)
                case Leave():
                    self._leave()

    def _say(self, event: AnyEvent) -> None:
        count(self._services.metrics, event)
        if self.outlet is not None:
            self.outlet.put(event)

    def _cut(self, cut: Cut) -> Iterable[AnyEffect]:
        now = self._services.now()
        marks = self._front.cut(now) if cut.cause == "flush" else self._front.finish(now)
        self._room.set()
        effects: list[AnyEffect] = []
        for mark in (*marks, CutMade(cause=cut.cause, position=self._front.position)):
            effects += self.machine.marked(mark, now)
        return effects

    def _close(self, code: int, reason: str) -> None:
        if self.outlet is not None:
            self.outlet.close(code, reason)
            self.outlet = None

    def _leave(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._ear.close()
        self._keeper.close()
        self._room.set()
        for reason in tuple(self._troubles):
            self._trouble(reason, False)
        outcome = "ended" if self.machine.state is State.ENDED else "handed_over"
        self._services.metrics.sessions.dec()
        self._services.metrics.sessions_ended.labels(outcome).inc()
        self._log.info("session.left", outcome=outcome, audio_s=round(self._front.position / RATE_HZ, 2))
        self._left(self)

    # --- time ---------------------------------------------------------------------------------------------------

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        deadline = self.machine.deadline
        if deadline is not None:
            wait = max(0.0, deadline - self._services.now())
            self._alarm = asyncio.get_running_loop().call_later(wait, self._ring_alarm)

    def _ring_alarm(self) -> None:
        self._alarm = None
        self._run(self.machine.tick(self._services.now()))
        self._set_alarm()

    def _stats(self) -> StreamStats:
        tracks = range(self.machine.options.tracks)
        return StreamStats(
            silence_ms=tuple(self._front.silence_ms(channel) for channel in tracks),
            loudest_discarded_dbfs=tuple(self._front.loudest_discarded_dbfs(channel) for channel in tracks),
        )


Reason: TypeAlias = Literal["buffer", "store", "engine", "load"]

_DEGRADED: dict[Reason, str] = {
    "buffer": f"less than {LOW_S} s of the {RING_S} s audio buffer is free; reading pauses until there is room",
    "store": "the store is away; finals wait until it is back",
    "engine": "the engine is busy or restarting; words come late",
}
_RESTORED: dict[Reason, str] = {
    "buffer": "the audio buffer has room again",
    "store": "the store is back",
    "engine": "the engine hears again",
}


def degraded(reason: Reason, active: bool) -> events.Degraded:
    """The event for a trouble that begins or ends."""
    return events.Degraded(reason=reason, active=active, message=(_DEGRADED if active else _RESTORED)[reason])


def abortion(error: StreamsrvError, *, lasting: bool = False) -> commands.Abort:
    """The command that ends a session with this error."""
    return commands.Abort(
        code=error.code,
        message=error.message,
        hint=error.hint,
        close_code=error.close_code,
        retryable=error.retryable,
        retry_after_s=error.retry_after_s,
        lasting=lasting,
    )


def count(metrics: telemetry.Metrics, event: AnyEvent) -> None:
    """Put what was said into the numbers."""
    if isinstance(event, events.Partial):
        metrics.partials.inc()
        metrics.partial_lag.observe(event.lag_ms / 1000)
    elif isinstance(event, events.Final):
        metrics.finals.labels(event.cause).inc()
        metrics.final_latency.observe(event.latency_ms / 1000)
        metrics.endpoint.observe(event.endpoint_ms / 1000)
