"""Drives one session: owns the front (ring and bytes), carries out the machine's effects, sets its alarm.

The only place where audio, machine, ear, store and peer meet.  Everything runs on the event loop and never waits in
it: hearing and storing are tasks, and audio that finds no room waits with the socket unread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from streamsrv import commands, events, telemetry
from streamsrv.audio.front import Front
from streamsrv.commands import AnyCommand, Options
from streamsrv.engines.base import About
from streamsrv.errors import BadRequest, StreamsrvError
from streamsrv.events import AnyEvent
from streamsrv.facts import RATE_HZ, Answer, ChannelStart, CutMade, Position, Receipt
from streamsrv.runtime.ear import Ear, MakeEar
from streamsrv.runtime.engines import wishes_of
from streamsrv.runtime.keeper import Keeper
from streamsrv.runtime.recorder import Recording
from streamsrv.runtime.surroundings import Outlet, Services
from streamsrv.runtime.tally import Tally
from streamsrv.runtime.troubles import LOW_S, RING_S, Reason, abortion, degraded, farewell
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
from streamsrv.session.states import OVER, TAKES_AUDIO, State
from streamsrv.stores.base import Anchor, StreamKey, StreamStats

SLICE_S = 0.5
"""Longest audio decided in one go: a 1 MiB message must not hold the event loop."""
ANCHOR_PAUSE_S = 2.0
"""Pause in arrival after which positions are tied to the wall clock again."""


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
        background: it hears a file, for which nobody waits: no promise of latency is kept or broken by it, its buffer
            is always full, and its audio runs on one clock however long hearing it takes.
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
        background: bool = False,
        left: Callable[[Driver], None],
    ) -> None:
        self.key = key
        self.about = about
        self.outlet: Outlet | None = None
        self._services = services
        self._make_ear = make_ear
        self._left = left
        self._background = background
        self._spare = 0
        self._recording: Recording | None = None
        self._hear_by(Front(options, ring_s=RING_S, starts=starts), options)
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
        self.keeper = Keeper(
            services,
            key,
            restarts=tuple(start.restart for start in starts),
            spools=not background,
            stored=self._stored,
            troubled=lambda away: self._trouble("store", away),
            warn=self._warn,
            gone=lambda deleted: self.cut(abortion(deleted, lasting=True)),
            stats=self._stats,
        )
        self._alarm: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()
        self._arrived_at: float | None = None
        self._troubles: set[Reason] = set()
        self._log = telemetry.logger("session").bind(interview=key.interview, stream=key.stream, epoch=key.epoch)
        self._tally = Tally(services.metrics, background=background)

    # --- what the reader calls ----------------------------------------------------------------------------------

    def open(self, outlet: Outlet) -> None:
        """Greet the peer; one whose session was ended before is only sent away, and learns why when it resumes."""
        if self.machine.state in OVER:
            return outlet.close(1012, "over")
        self.outlet = outlet
        self._log.info("session.opened", engine=self.about.name)
        self._run(self.machine.open())
        for reason in sorted(self._troubles):  # what is wrong since before the peer could be told
            outlet.put(degraded(reason, True))
        self._set_alarm()

    @property
    def resume_at(self) -> Position:
        """First position of the stream that this session wants to hear."""
        return self._front.resume_at

    def part(self, outlet: Outlet) -> None:
        """This peer's connection is gone; the session may live on."""
        if self.outlet is outlet:
            self.outlet = None

    async def audio(self, data: bytes) -> None:
        """Take audio; returns when the ring has room for more.  Audio after the end is ignored."""
        machine = self.machine
        if machine.state is not State.LIVE and machine.state not in TAKES_AUDIO:  # the usual state first: it is cheap
            return machine.pass_over()
        now = self._services.now()
        machine.last_heard = now
        if machine.state is State.OPEN:
            self._run(machine.receive(commands.Audio(data=b""), now))
        if self._arrived_at is None or now - self._arrived_at > ANCHOR_PAUSE_S:
            self._anchor()
        self._arrived_at = now
        if len(data) <= self._slice:
            self._feed(data, now)
        else:
            await self._feed_long(memoryview(data), self._slice)
        self._spare -= len(data)
        if self._spare < 0:  # until so many bytes are used up, nobody needs to look at the ring
            if self._front.room < LOW_S * RATE_HZ:
                await self._wait_for_room()
            self._spare = (self._front.room - LOW_S * RATE_HZ) * self._front.bytes_per_second // RATE_HZ

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

    def cut(self, why: commands.Abort) -> None:
        """End at once: tell the peer, and let go of what is not stored yet."""
        if self.outlet is not None:
            self.outlet.put(farewell(why))
            self._close(why.close_code, why.code)
        self.order(commands.Supersede())

    # --- audio --------------------------------------------------------------------------------------------------

    def _anchor(self) -> None:
        """Tie positions to the wall clock; those of a file count from its beginning alone."""
        if not self._background or self._front.position == 0:
            self.keeper.anchor(Anchor(position=self._front.position, utc_ms=self._services.utc_ms()))

    def _hear_by(self, front: Front, options: Options) -> None:
        """Use this front from now on."""
        if self._recording is not None:
            self._recording.close()
        self._recording = self._services.record(self.key, options, front.resume_at, self._warn)
        front.tap = None if self._recording is None else self._recording.take
        self._front = front
        self._slice = int(front.bytes_per_second * SLICE_S)
        self._spare = 0

    def _feed(self, data: bytes | memoryview, now: float) -> None:
        for mark in self._front.feed(data, now):
            self._run(self.machine.marked(mark, now))

    async def _feed_long(self, data: memoryview, size: int) -> None:
        for at in range(0, len(data), size):
            if self._front.room < LOW_S * RATE_HZ:
                await self._wait_for_room()
            if self.machine.state not in TAKES_AUDIO:
                return self.machine.pass_over()
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
        if self.machine.state is not State.OPEN or not self.machine.fresh:
            return True
        try:
            if options.engine not in (None, self.about.name):
                message = f"option 'engine': this stream is heard by '{self.about.name}'"
                raise BadRequest(message, hint="choose the engine in the query")
            self._services.check(options)
            ear = self._new_ear(options)
            await self._services.store.configure_stream(self.key, options)
        except StreamsrvError as error:
            self.order(abortion(error))
            return False
        self._ear.close()
        self._ear = ear
        self._hear_by(Front(options, ring_s=RING_S), options)
        self.keeper.restarts = (0,) * options.tracks
        return True

    def _new_ear(self, options: Options) -> Ear:
        return self._make_ear(
            channels=options.tracks,
            language=options.language,
            wishes=wishes_of(options),
            read=lambda channel, start, stop: self._front.read(channel, start, stop),
            answered=self._answered,
            troubled=lambda active, reason="engine": self._trouble(reason, active),
            picked=lambda request: self.machine.picked(request, self._services.now()),
        )

    # --- answers and receipts -----------------------------------------------------------------------------------

    def _answered(self, answer: Answer) -> None:
        self._run(self.machine.heard(answer, self._services.now()))

    def _stored(self, receipt: Receipt) -> None:
        self._run(self.machine.stored(receipt, self._services.now()))

    def _trouble(self, reason: Reason, active: bool) -> None:
        if active is (reason in self._troubles) or self._background:
            return
        (self._troubles.add if active else self._troubles.discard)(reason)
        self._tally.degraded(reason, active)
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
                case Keep(final=final) as job:
                    self.keeper.put(job)
                    self._ear.ended(final)
                case Note() | Settle() as job:
                    self.keeper.put(job)
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

    def _warn(self, code: str, message: str) -> None:
        self._say(events.Warned(code=code, message=message))

    def _say(self, event: AnyEvent) -> None:
        self._services.fanout.tell(self.key, event)
        self._tally.said(event)
        if self.outlet is not None:
            self.outlet.put(event)

    def _cut(self, cut: Cut) -> Iterable[AnyEffect]:
        now = self._services.now()
        if cut.cause == "part":
            marks = self._front.part(now, cut.channels)
        else:
            marks = (self._front.cut if cut.cause == "flush" else self._front.finish)(now)
        self._room.set()
        marks.append(CutMade(cause=cut.cause, position=self._front.position))
        return [effect for mark in marks for effect in self.machine.marked(mark, now)]

    def _close(self, code: int, reason: str) -> None:
        if self.outlet is not None:
            self.outlet.close(code, reason)
            self.outlet = None

    def _leave(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._ear.close()
        self.keeper.close()
        if self._recording is not None:
            self._recording.close()
        self._room.set()
        for reason in tuple(self._troubles):
            self._trouble(reason, False)
        outcome = "ended" if self.machine.state is State.ENDED else "handed_over"
        if outcome == "ended":
            self._services.fanout.tell(self.key, events.StreamOver())
        self._tally.left(outcome, (self._front.position - self.resume_at) / RATE_HZ)
        self._log.info(
            "session.left",
            outcome=outcome,
            audio_s=round(self._front.position / RATE_HZ, 2),
            nonfinite_samples=self._front.nonfinite,
            dangling_bytes=self._front.dangling,
        )
        self._left(self)

    # --- time ---------------------------------------------------------------------------------------------------

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if (deadline := self.machine.deadline) is not None:
            wait = max(0.0, deadline - self._services.now())
            self._alarm = asyncio.get_running_loop().call_later(wait, self._ring_alarm)

    def _ring_alarm(self) -> None:
        self._alarm = None
        if "buffer" in self._troubles:
            self.machine.last_heard = self._services.now()  # we do not read what the peer may have sent
        self.machine.excuse(self._services.spool.store_away.at)
        self._run(self.machine.tick(self._services.now()))
        self._set_alarm()

    def _stats(self) -> StreamStats:
        tracks = range(self.machine.options.tracks)
        return StreamStats(
            position=self._front.position,
            silence_ms=tuple(self._front.silence_ms(channel) for channel in tracks),
            loudest_discarded_dbfs=tuple(self._front.loudest_discarded_dbfs(channel) for channel in tracks),
        )
