"""The streams this server holds: begun, resumed, counted, drained; and those a crash left behind."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from streamsrv import commands, telemetry
from streamsrv.commands import Options
from streamsrv.errors import Conflict, Draining, Forbidden, NotFound, Stopped, StoreUnavailable, Superseded
from streamsrv.events import Final
from streamsrv.facts import ChannelStart
from streamsrv.runtime.admission import Admission
from streamsrv.runtime.driver import Driver
from streamsrv.runtime.engines import AnyEngine, Engines, machine_settings, wishes_of
from streamsrv.runtime.fanout import Fanout
from streamsrv.runtime.orphans import Orphans
from streamsrv.runtime.recorder import Recorder
from streamsrv.runtime.settings import SessionSettings
from streamsrv.runtime.spool import Spool
from streamsrv.runtime.troubles import abortion
from streamsrv.runtime.turns import Turns
from streamsrv.session.states import State
from streamsrv.stores.base import Stream, StreamKey, TranscriptStore

STOP_WITHIN_S = 5.0
"""Time a stream of a deleted interview has to end as others do; then it is cut."""
CATCH_UP_S = 5.0
"""Time the store has to take what was spooled of a stream before its resume is asked to come again."""
TOKEN_CHARACTERS = 200
"""Longest resume token looked at."""

log = telemetry.logger("streams")


class Services:
    """What all sessions share."""

    def __init__(
        self, store: TranscriptStore, metrics: telemetry.Metrics, fanout: Fanout, recorder: Recorder, spool: Spool
    ) -> None:
        self.store = store
        self.spool = spool
        self.metrics = metrics
        self.fanout = fanout
        self.recorder = recorder
        self.check = recorder.check
        self.record = recorder.begin
        self.recorded = recorder.written

    def now(self) -> float:
        return time.monotonic()

    def utc_ms(self) -> int:
        return time.time_ns() // 1_000_000


class Streams:
    """Registry of live sessions on this node.

    Args:
        services: store, metrics, clocks.
        engines: what hears.
        settings: a session's bounds.
        max_sessions: connected sessions; resumes get ``admission.reserve`` more.
    """

    def __init__(self, services: Services, engines: Engines, settings: SessionSettings, *, max_sessions: int) -> None:
        self._drain: commands.Drain | None = None
        self._services = services
        self._engines = engines
        self._settings = settings
        self._admission = Admission(max_sessions)
        self.turns = Turns()
        """Of those who begin or come back."""
        self._drivers: dict[str, Driver] = {}
        self._pending: dict[str, int] = {}
        self._doomed: dict[str, int] = {}
        """Interviews being deleted, and by how many at once."""
        self._someone_left = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._orphans = Orphans(services, settings.resume_window_s, self._drivers.__contains__)

    @property
    def draining(self) -> bool:
        """Whether the server goes away."""
        return self._drain is not None

    @property
    def connected(self) -> int:
        """Sessions that are served now: streams that only wait for a resume cost nothing."""
        return self._serving(None)

    # --- begin and resume ---------------------------------------------------------------------------------------

    def foresee(self, interview: str, options: Options) -> AnyEngine:
        """What ``begin`` would refuse now, without beginning anything.

        Returns:
            The engine that would hear.

        Raises:
            As ``begin`` does, but for the store.
        """
        self._services.check(options)
        engine = self._engines.choose(options.engine)
        self._engines.check(engine, language=options.language, wishes=wishes_of(options))
        self._admit(engine)
        self._refuse_doomed(interview)
        if self._live(interview) >= self._settings.max_streams:
            raise Conflict(
                f"interview '{interview}' has {self._settings.max_streams} live streams, the most it may have",
                hint="finish one first, or resume your own with its token",
            )
        return engine

    async def begin(self, interview: str, options: Options) -> tuple[Driver, str]:
        """A new stream of an interview.

        Returns:
            Its driver, not yet opened, and its resume token.

        Raises:
            Draining, Full: this server takes no more.
            Conflict: the interview has its live streams, or is being deleted.
            Forbidden: it shall be recorded, and this server makes no recordings.
            BadRequest, UnsupportedLanguage: an option does not fit.
            StoreUnavailable: it cannot be recorded.
        """
        engine = self.foresee(interview, options)
        stream, token = _new_token()
        self._pending[interview] = self._pending.get(interview, 0) + 1
        try:
            record = await self._services.store.begin_stream(
                interview=interview,
                stream=stream,
                token_hash=_hash(token),
                options=options,
                engine=engine.about.name,
                now_ms=self._services.utc_ms(),
            )
            await self.turns.mine()
            key = StreamKey(interview=interview, stream=stream, epoch=record.epochs[-1].epoch)
            starts = (ChannelStart(),) * options.tracks
            return self._drive(key, options, engine, starts, ()), token
        except BaseException:  # a store that gave no answer may have done it, or do it yet
            self._orphans.disown(stream)
            raise
        finally:
            self._unpend(interview)

    async def resume(self, interview: str, token: str) -> Driver:
        """Take a stream over, from a cut connection, another node or a process that is gone.

        Raises:
            Draining, Full: this server takes no more.
            Forbidden, NotFound, StreamEnded: the token opens nothing here.
            Superseded: it was overtaken by another resume of the stream.
            StoreUnavailable: the store cannot be asked.
        """
        self._refuse_draining()
        self._refuse_doomed(interview)
        stream, _, secret = token.partition(".")
        if not secret or len(token) > TOKEN_CHARACTERS or not token.isascii():
            raise Forbidden("the resume token is not one of this server's", hint="use the token from 'ready' unchanged")
        self._pending[interview] = self._pending.get(interview, 0) + 1
        try:
            # Asked first: taking the stream over, even in vain, would take it from its owner.
            known = [one for one in await self._services.store.streams(interview) if one.id == stream]
            if not known:
                raise NotFound("this interview has no such stream", hint="resume on the path the stream began with")
            self._admit(self._engine_of(known[0]), resumes=True)
            await self._settle(stream)
            resumed = await self._services.store.resume_stream(stream, _hash(token), now_ms=self._services.utc_ms())
            await self.turns.mine()
            if not self.supersede(stream, resumed.key.epoch) and stream in self._drivers:
                raise Superseded("a newer attempt to resume this stream came before this one was done")
            engine = self._engine_of(resumed.stream)
            return self._drive(resumed.key, resumed.stream.options, engine, resumed.starts, resumed.finals)
        except StoreUnavailable:
            self._services.spool.store_away.seen()
            raise
        finally:
            self._unpend(interview)

    async def _settle(self, stream: str) -> None:
        """Words of this stream that were shown here are in the store first: the new epoch begins behind them."""
        older = self._drivers.get(stream)
        if older is not None:
            await older.keeper.caught_up(CATCH_UP_S)
        await self._services.spool.settle(stream)

    def _engine_of(self, stream: Stream) -> AnyEngine:
        """The engine the stream began with; another server may lack it, and then its default goes on."""
        for engine in self._engines.all:
            if engine.about.name == stream.engine:
                return engine
        return self._engines.default

    def _drive(
        self,
        key: StreamKey,
        options: Options,
        engine: AnyEngine,
        starts: tuple[ChannelStart, ...],
        finals: tuple[Final, ...],
    ) -> Driver:
        driver = Driver(
            self._services,
            machine_settings(engine.abilities, self._settings),
            key,
            options=options,
            about=engine.about,
            make_ear=partial(self._engines.ear, engine),
            starts=starts,
            finals=finals,
            left=self._left,
        )
        self._drivers[key.stream] = driver
        self._services.fanout.shared.claim(key.interview, key.stream, key.epoch)
        self._empty.clear()
        if self._drain is not None:  # it began while this one was on its way
            driver.order(self._drain)
        return driver

    def serves(self, stream: str, *, older_than: int | None = None) -> bool:
        """Whether this node serves the stream, or an epoch of it that is older than this one."""
        driver = self._drivers.get(stream)
        return driver is not None and (older_than is None or driver.key.epoch < older_than)

    def waited_for(self) -> list[str]:
        """Interviews of which a stream waits here for its speaker, who may have gone to another node, as they began."""
        return [*dict.fromkeys(d.key.interview for d in self._drivers.values() if d.machine.state is State.PARTED)]

    def supersede(self, stream: str, epoch: int) -> bool:
        """This epoch of the stream is served, here or elsewhere: let go of an older one; whether there was one."""
        if not self.serves(stream, older_than=epoch):
            return False
        self._drivers[stream].order(commands.Supersede())
        return True

    def _left(self, driver: Driver) -> None:
        self._services.fanout.shared.disclaim(driver.key.stream, driver.key.epoch)
        if self._drivers.get(driver.key.stream) is driver:
            del self._drivers[driver.key.stream]
        self._someone_left.set()
        if not self._drivers:
            self._empty.set()

    def _unpend(self, interview: str) -> None:
        left = self._pending[interview] - 1
        if left:
            self._pending[interview] = left
        else:
            del self._pending[interview]
        self._someone_left.set()

    # --- admission ----------------------------------------------------------------------------------------------

    def _refuse_draining(self) -> None:
        if self.draining:
            raise Draining("this server is going away", retry_after_s=1.0)

    def _admit(self, engine: AnyEngine, *, resumes: bool = False) -> None:
        self._refuse_draining()
        name, own = engine.about.name, int(resumes)  # a resume is counted among the pending already
        self._admission.check(
            connected=self._serving(None) - own,
            hearing=self._serving(name) - own,
            load=self._engines.load(engine),
            resumes=resumes,
        )

    def _serving(self, engine: str | None) -> int:
        """Sessions that are served now, by this engine or by any; those about to begin count for each."""
        drivers = [d for d in self._drivers.values() if engine is None or d.about.name == engine]
        return sum(self._pending.values()) + sum(1 for d in drivers if d.machine.state is not State.PARTED)

    def _live(self, interview: str) -> int:
        return self._pending.get(interview, 0) + sum(
            1 for d in self._drivers.values() if d.key.interview == interview and d.machine.state is not State.PARTED
        )

    # --- deleting -----------------------------------------------------------------------------------------------

    @contextmanager
    def doom(self, interview: str) -> Iterator[None]:
        """Take no stream of this interview meanwhile."""
        self._doomed[interview] = self._doomed.get(interview, 0) + 1
        try:
            yield
        finally:
            self._doomed[interview] -= 1
            if not self._doomed[interview]:
                del self._doomed[interview]

    def _refuse_doomed(self, interview: str) -> None:
        if interview in self._doomed:
            raise Conflict(f"interview '{interview}' is being deleted", hint="try again in a moment, or use another id")

    async def stop(self, interview: str) -> None:
        """End all streams of an interview that is doomed; who takes too long to end is cut."""
        error = Stopped(f"interview '{interview}' was deleted", hint="begin a new stream, of another interview")
        order = abortion(error, lasting=True)
        end = self._services.now() + STOP_WITHIN_S
        told: set[Driver] = set()
        while (drivers := self._of(interview)) or interview in self._pending:
            for driver in drivers - told:
                driver.order(order)
            told |= drivers
            await self._leaves(end - self._services.now())
            if self._services.now() >= end:
                break
        self.drop(interview, error)

    def drop(self, interview: str, error: Stopped) -> None:
        """End all streams of an interview that is gone, with what is not stored yet."""
        for driver in self._of(interview):
            driver.cut(abortion(error, lasting=True))

    def holds(self, interview: str) -> bool:
        """Whether this node serves a stream of the interview."""
        return bool(self._of(interview))

    def _of(self, interview: str) -> set[Driver]:
        return {driver for driver in self._drivers.values() if driver.key.interview == interview}

    async def _leaves(self, within_s: float) -> None:
        self._someone_left.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._someone_left.wait()

    # --- the server's own life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Look for streams that no server holds, now and from time to time.

        Each may be resumed for ``resume_window_s``, then it is ended; one that nobody can resume at once.

        Raises:
            StoreUnavailable: the streams cannot be read.
        """
        await self._orphans.start()

    async def drain(self, within_s: float) -> None:
        """Take no newcomers, finalise what was said, send everybody elsewhere; returns when all have left."""
        self._drain = commands.Drain(within_s=within_s)
        self._services.fanout.drain(within_s)
        self._orphans.cancel()
        for driver in tuple(self._drivers.values()):
            driver.order(self._drain)
        try:
            async with asyncio.timeout(within_s):
                await self._empty.wait()
        except TimeoutError:
            log.warning("streams.left_behind", sessions=len(self._drivers))
            self.dismiss()

    async def close(self) -> None:
        """Look for nothing any more."""
        await self._orphans.close()

    def dismiss(self) -> None:
        """Send everybody away at once; what is neither stored nor spooled is not acknowledged, and comes again."""
        order = abortion(Draining("this server is going away"))
        for driver in tuple(self._drivers.values()):
            driver.cut(order)


def _new_token() -> tuple[str, str]:
    stream = f"st-{secrets.token_hex(8)}"
    return stream, f"{stream}.{secrets.token_urlsafe(24)}"


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
