"""The streams this server holds: begun, resumed, counted, drained; and those a crash left behind."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from functools import partial

from streamsrv import commands, telemetry
from streamsrv.commands import Options
from streamsrv.engines.base import LiveEngine
from streamsrv.errors import Conflict, Draining, Forbidden, Full, StoreUnavailable
from streamsrv.events import Final
from streamsrv.facts import ChannelStart
from streamsrv.runtime.driver import Driver
from streamsrv.runtime.engines import Engines, machine_settings
from streamsrv.runtime.settings import SessionSettings
from streamsrv.session.states import State
from streamsrv.stores.base import Stream, StreamKey, StreamStats, TranscriptStore

RESUME_RESERVE = 0.1
"""Share of ``max_sessions`` kept for resumes on top of it: who is inside must be able to come back."""
RETRY_AFTER_S = 5.0
"""Told to those refused because the server is full."""
TOKEN_CHARACTERS = 200
"""Longest resume token looked at."""

log = telemetry.logger("streams")


class Services:
    """What all sessions share."""

    def __init__(self, store: TranscriptStore, metrics: telemetry.Metrics) -> None:
        self.store = store
        self.metrics = metrics

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
        max_sessions: connected sessions; resumes get ``RESUME_RESERVE`` more.
    """

    def __init__(self, services: Services, engines: Engines, settings: SessionSettings, *, max_sessions: int) -> None:
        self.draining = False
        self._services = services
        self._engines = engines
        self._settings = settings
        self._max_sessions = max_sessions
        self._drivers: dict[str, Driver] = {}
        self._pending: dict[str, int] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._orphans: asyncio.Task[None] | None = None

    @property
    def connected(self) -> int:
        """Sessions that are served now: streams that only wait for a resume cost nothing."""
        return sum(self._pending.values()) + sum(
            1 for d in self._drivers.values() if d.machine.state is not State.PARTED
        )

    # --- begin and resume ---------------------------------------------------------------------------------------

    async def begin(self, interview: str, options: Options) -> tuple[Driver, str]:
        """A new stream of an interview.

        Returns:
            Its driver, not yet opened, and its resume token.

        Raises:
            Draining, Full: this server takes no more.
            Conflict: the interview has its live streams.
            BadRequest, UnsupportedLanguage: an option does not fit.
            StoreUnavailable: it cannot be recorded.
        """
        engine = self._engines.choose(options.engine)
        engine.listen(language=options.language).close()  # a wrong language is refused before anything is recorded
        self._admit(0.0)
        self._pending[interview] = self._pending.get(interview, 0) + 1
        try:
            if self._live(interview) > self._settings.max_streams:
                most = self._settings.max_streams
                raise Conflict(
                    f"interview '{interview}' has {most} live streams, the most it may have",
                    hint="finish one first, or resume your own with its token",
                )
            stream, token = _new_token()
            record = await self._services.store.begin_stream(
                interview=interview,
                stream=stream,
                token_hash=_hash(token),
                options=options,
                engine=engine.about.name,
                now_ms=self._services.utc_ms(),
            )
            key = StreamKey(interview=interview, stream=stream, epoch=record.epochs[-1].epoch)
            starts = (ChannelStart(),) * options.tracks
            return self._drive(key, options, engine, starts, ()), token
        finally:
            self._unpend(interview)

    async def resume(self, interview: str, token: str) -> Driver:
        """Take a stream over, from a cut connection, another node or a process that is gone.

        Raises:
            Draining, Full: this server takes no more.
            Forbidden, NotFound, StreamEnded: the token opens nothing here.
            StoreUnavailable: the store cannot be asked.
        """
        self._admit(RESUME_RESERVE)
        stream, _, secret = token.partition(".")
        if not secret or len(token) > TOKEN_CHARACTERS or not token.isascii():
            raise Forbidden("the resume token is not one of this server's", hint="use the token from 'ready' unchanged")
        self._pending[interview] = self._pending.get(interview, 0) + 1
        try:
            resumed = await self._services.store.resume_stream(stream, _hash(token), now_ms=self._services.utc_ms())
            if resumed.key.interview != interview:
                raise Forbidden(
                    "the resume token belongs to another interview", hint="resume on the path the stream began with"
                )
            older = self._drivers.get(stream)
            if older is not None:
                older.order(commands.Supersede())
            options = resumed.stream.options
            engine = self._engine_of(resumed.stream)
            return self._drive(resumed.key, options, engine, resumed.starts, resumed.finals)
        finally:
            self._unpend(interview)

    def _engine_of(self, stream: Stream) -> LiveEngine:
        """The engine the stream began with; another server may lack it, and then its default goes on."""
        for engine in self._engines.all:
            if engine.about.name == stream.engine:
                return engine
        return self._engines.default

    def _drive(
        self,
        key: StreamKey,
        options: Options,
        engine: LiveEngine,
        starts: tuple[ChannelStart, ...],
        finals: tuple[Final, ...],
    ) -> Driver:
        driver = Driver(
            self._services,
            machine_settings(engine, self._settings),
            key,
            options=options,
            about=engine.about,
            make_ear=partial(self._engines.ear, engine),
            starts=starts,
            finals=finals,
            left=self._left,
        )
        self._drivers[key.stream] = driver
        self._empty.clear()
        return driver

    def _left(self, driver: Driver) -> None:
        if self._drivers.get(driver.key.stream) is driver:
            del self._drivers[driver.key.stream]
        if not self._drivers:
            self._empty.set()

    def _unpend(self, interview: str) -> None:
        left = self._pending[interview] - 1
        if left:
            self._pending[interview] = left
        else:
            del self._pending[interview]

    # --- admission ----------------------------------------------------------------------------------------------

    def _admit(self, reserve: float) -> None:
        if self.draining:
            raise Draining("this server is going away", retry_after_s=1.0)
        most = int(self._max_sessions * (1 + reserve))
        if self.connected >= most:
            raise Full(
                f"this server serves {self._max_sessions} sessions, the most it may", retry_after_s=RETRY_AFTER_S
            )

    def _live(self, interview: str) -> int:
        return self._pending.get(interview, 0) + sum(
            1 for d in self._drivers.values() if d.key.interview == interview and d.machine.state is not State.PARTED
        )

    # --- the server's own life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Look for streams a crash left open: each may be resumed for ``resume_window_s``, then it is ended."""
        left_over = await self._services.store.live_streams()
        if left_over:
            log.info("streams.found_open", streams=len(left_over))
            self._orphans = asyncio.create_task(self._end_orphans(left_over))

    async def _end_orphans(self, streams: tuple[Stream, ...]) -> None:
        await asyncio.sleep(self._settings.resume_window_s)
        for stream in streams:
            key = StreamKey(interview=stream.interview, stream=stream.id, epoch=stream.epochs[-1].epoch)
            if stream.id in self._drivers:
                continue
            while True:
                try:
                    await self._services.store.end_stream(key, stats=StreamStats(), now_ms=self._services.utc_ms())
                    break
                except StoreUnavailable:
                    await asyncio.sleep(1.0)

    async def drain(self, within_s: float) -> None:
        """Take no newcomers, finalise what was said, send everybody elsewhere; returns when all have left."""
        self.draining = True
        if self._orphans is not None:
            self._orphans.cancel()
        for driver in tuple(self._drivers.values()):
            driver.order(commands.Drain(within_s=within_s))
        try:
            async with asyncio.timeout(within_s):
                await self._empty.wait()
        except TimeoutError:
            log.warning("streams.left_behind", sessions=len(self._drivers))


def _new_token() -> tuple[str, str]:
    stream = f"st-{secrets.token_hex(8)}"
    return stream, f"{stream}.{secrets.token_urlsafe(24)}"


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
