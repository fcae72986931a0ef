"""One file on its way through decoder, driver, machine and engine: the same way as live speech, and behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from streamsrv import commands, events
from streamsrv.audio.decode import WARNINGS, Cage, Decoding, Layout
from streamsrv.audio.formats import AudioFormat
from streamsrv.commands import Options
from streamsrv.errors import BadMedia, ClientFault, Stopped
from streamsrv.events import AnyEvent
from streamsrv.facts import RATE_HZ, ChannelStart, Position
from streamsrv.runtime.driver import Driver
from streamsrv.runtime.engines import AnyEngine, Engines, machine_settings
from streamsrv.runtime.settings import SessionSettings
from streamsrv.runtime.surroundings import Services
from streamsrv.session.settings import MachineSettings
from streamsrv.stores.base import Job, StreamKey

NEVER_S = 1e9
"""A file is never idle: its decoder has deadlines of its own."""
RECORD_S = 4.0
"""Audio given between two waits for the recorder; with a piece more, less than what may wait for the disk."""


class FileServices(Services, Protocol):
    """What files need besides what all drivers need."""

    async def recorded(self) -> None:
        """Return when what was given to recordings until now is written."""


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """How it went."""

    audio_ms: int
    warnings: tuple[str, ...] = ()
    """Sentences."""
    failure: ClientFault | None = None
    """The file broke off; what came before is heard and stored."""


class Peer:
    """The session's outlet: keeps the little a job wants to know.  Never waits."""

    def __init__(self) -> None:
        self.failed: events.Failed | None = None
        self.given_up = 0
        """Segments the engine gave up; their audio was speech."""
        self.warnings: dict[str, str] = {}
        """By code, of which there are few."""
        self.over = asyncio.Event()

    def put(self, event: AnyEvent) -> None:
        match event:
            case events.Final(failed=failed):
                self.given_up += failed
            case events.Warned(code=code, message=message):
                self.warnings[code] = message
            case events.Failed():
                self.failed = event

    def close(self, code: int, reason: str) -> None:
        self.over.set()


class FileRun:
    """Hears one file; made anew for each attempt.

    Args:
        services: store, metrics, clocks.
        engines: what hears.
        session: the bounds of sessions, as far as they are a file's too.
        longest_s: longest recording.
        job: which stream it becomes, and how.
        path: the file.
    """

    def __init__(
        self, services: FileServices, engines: Engines, session: SessionSettings, longest_s: float, job: Job, path: Path
    ) -> None:
        self.duration_s: float | None = None
        """As the header claims."""
        self.begun_at: float | None = None
        """When its first audio was taken, monotonic seconds."""
        self.peer = Peer()
        self._services = services
        self._engines = engines
        self._session = session
        self._longest_s = longest_s
        self._job = job
        self._path = path
        self._driver: Driver | None = None

    @property
    def resume_at(self) -> Position:
        """Where this attempt began; what lies before was heard by another."""
        return 0 if self._driver is None else self._driver.resume_at

    @property
    def heard(self) -> Position:
        """How far the slowest channel is: everything before is stored, or was silence."""
        return 0 if self._driver is None else max(self.resume_at, self._driver.machine.settled)

    async def work(self, cage: Cage, *, begun: Callable[[], None] = lambda: None) -> Heard:
        """Hear it to its end.  When it is cancelled or fails, everything is left as by a crash: to be gone on with.

        Args:
            begun: called when its first audio is taken.

        Raises:
            UnsupportedMedia, BadMedia, MediaTooLong: nothing of it can be heard.
            DecoderLost, Full: try again.
            Stopped: the interview was deleted.
            StreamEnded: it was heard before, by a process that died before it could say so.
            StoreUnavailable: try again.
        """
        async with await cage.open_file(self._path) as decoding:
            self.duration_s = decoding.layout.duration_s
            first = await decoding.read()
            if not first:
                raise BadMedia("the recording holds no audio")
            driver = self._driver = await self._begin(decoding.layout)
            driver.open(self.peer)
            self.begun_at = self._services.now()
            begun()
            try:
                return await self._hear(decoding, driver, first)
            finally:
                if not self.peer.over.is_set():
                    driver.order(commands.Supersede())  # lets go at once, of what is not stored yet too

    async def _hear(self, decoding: Decoding, driver: Driver, first: bytes) -> Heard:
        layout = AudioFormat.of(driver.machine.options)
        skipped = layout.samples(self.resume_at)
        feed = _Feed(driver, self.peer, self._services, skip=skipped * layout.frame_bytes)
        failure: ClientFault | None = None
        try:
            await feed.take(first)
            async for piece in decoding:
                await feed.take(piece)
        except Stopped:
            raise
        except ClientFault as error:
            failure = error
        await driver.command(commands.Finish())
        await self.peer.over.wait()
        feed.check()
        heard_s = feed.taken / layout.bytes_per_second
        self._services.metrics.job_audio_seconds.inc(max(0.0, heard_s - self.resume_at / RATE_HZ))
        return Heard(audio_ms=round(heard_s * 1000), warnings=self._warnings(decoding), failure=failure)

    def _warnings(self, decoding: Decoding) -> tuple[str, ...]:
        asked, layout, usual = self._job.options, decoding.layout, Options()
        warnings = [WARNINGS[word] for word in decoding.warnings]
        if asked.channels not in (usual.channels, layout.channels):
            warnings.append(f"channels={asked.channels} was asked for; the file has {layout.channels}")
        if asked.sample_rate not in (usual.sample_rate, layout.rate_hz):
            warnings.append(f"sample_rate={asked.sample_rate} was asked for; the file has {layout.rate_hz}")
        if self.peer.given_up:
            warnings.append(f"the engine gave {self.peer.given_up} segments up; their text is empty")
        return (*warnings, *self.peer.warnings.values())

    # --- the stream -------------------------------------------------------------------------------------------------

    async def _begin(self, layout: Layout) -> Driver:
        job, store = self._job, self._services.store
        options = _options(job.options, layout)
        engine = self._engine()
        if any(stream.id == job.stream for stream in await store.streams(job.interview)):
            resumed = await store.resume_stream(job.stream, job.token_hash, now_ms=self._services.utc_ms())
            if resumed.stream.options != options:
                raise BadMedia("the recording is not the one that was begun")
            return self._drive(engine, resumed.key, options, resumed.starts)
        begun = await store.begin_stream(
            interview=job.interview,
            stream=job.stream,
            token_hash=job.token_hash,
            options=options,
            engine=engine.about.name,
            now_ms=self._services.utc_ms(),
        )
        key = StreamKey(interview=job.interview, stream=job.stream, epoch=begun.epochs[-1].epoch)
        return self._drive(engine, key, options, (ChannelStart(),) * options.tracks)

    def _engine(self) -> AnyEngine:
        """The engine it was meant for; this process may lack it, and then its default goes on."""
        names = {engine.about.name: engine for engine in self._engines.all}
        return names.get(self._job.engine, self._engines.default)

    def _drive(self, engine: AnyEngine, key: StreamKey, options: Options, starts: tuple[ChannelStart, ...]) -> Driver:
        shared = self._services.fanout.shared
        shared.claim(key.interview, key.stream, key.epoch)
        return Driver(
            self._services,
            self._settings(engine),
            key,
            options=options,
            about=engine.about,
            make_ear=partial(self._engines.ear, engine, background=True),
            starts=starts,
            background=True,
            left=lambda driver: shared.disclaim(driver.key.stream, driver.key.epoch),
        )

    def _settings(self, engine: AnyEngine) -> MachineSettings:
        """Nobody watches, so partials are not asked for."""
        return msgspec.structs.replace(
            machine_settings(engine.abilities, self._session),
            idle_timeout_s=NEVER_S,
            max_stream_s=self._longest_s + 60.0,
            partials_always=False,
            concluded_after_s=None,
        )


class _Feed:
    """Hands samples to the driver, without those that are stored already.

    Args:
        skip: bytes at the beginning that are not wanted.
    """

    def __init__(self, driver: Driver, peer: Peer, services: FileServices, *, skip: int) -> None:
        self.taken = 0
        """Bytes decoded."""
        self._driver = driver
        self._peer = peer
        self._services = services
        self._skip = skip
        options = driver.machine.options
        self._record_bytes = int(RECORD_S * AudioFormat.of(options).bytes_per_second) if options.record else 0
        self._unrecorded = 0

    async def take(self, piece: bytes) -> None:
        """Waits while the ring has no room, and for the recording, which would have gaps otherwise."""
        wanted = piece[max(0, self._skip - self.taken) :]
        self.taken += len(piece)
        self.check()
        if wanted:
            await self._driver.audio(wanted)
            await self._recorded(len(wanted))
        else:
            await asyncio.sleep(0)

    async def _recorded(self, size: int) -> None:
        self._unrecorded += size
        if 0 < self._record_bytes <= self._unrecorded:
            self._unrecorded = 0
            await self._services.recorded()

    def check(self) -> None:
        """See whether the session goes on, or has ended well.

        Raises:
            Stopped: somebody ended it.
        """
        failed = self._peer.failed
        if failed is not None:
            raise Stopped(failed.message)


def _options(asked: Options, layout: Layout) -> Options:
    options = msgspec.structs.replace(
        asked, encoding="pcm_s16le", sample_rate=layout.rate_hz, channels=layout.channels, interim=False
    )
    AudioFormat.of(options)
    return options
