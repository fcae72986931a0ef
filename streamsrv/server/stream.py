"""``ws /transcription/stream/{interview}``: from the handshake to the last event."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

from aiohttp import WSMessage, WSMsgType, web

from streamsrv import commands, events, telemetry
from streamsrv.audio.mistakes import Look
from streamsrv.commands import Options
from streamsrv.dialects.base import Dialect
from streamsrv.dialects.native import (
    BINARY_BYTES,
    TEXT_BYTES,
    Greeting,
    NativeDialect,
    ended_body,
    merge_options,
    unknown_options,
)
from streamsrv.engines.base import About
from streamsrv.errors import BadRequest, ClientFault, Flood, ServerFault, StreamEnded, StreamsrvError, WrongMessageKind
from streamsrv.runtime.driver import Driver
from streamsrv.runtime.settings import SessionSettings
from streamsrv.runtime.streams import Streams
from streamsrv.runtime.troubles import abortion
from streamsrv.server.answers import DOOR, METRICS
from streamsrv.server.budget import FREE_BYTES, Budget
from streamsrv.server.container import DECODERS, Intake
from streamsrv.server.names import interview_of
from streamsrv.server.peer import LEFT
from streamsrv.server.shares import SHARES
from streamsrv.server.socket import Socket, check_upgrade
from streamsrv.server.speaker import Speaker
from streamsrv.server.starts import STARTS
from streamsrv.server.transcripts import STORE
from streamsrv.server.viewer import watch
from streamsrv.session.machine import MAX_READY_FINALS

STREAMS = web.AppKey("streams", Streams)
SESSION = web.AppKey("session", SessionSettings)
SPEAKERS: web.AppKey[set[Speaker]] = web.AppKey("speakers", set)

MESSAGES_PER_TURN = 32
"""Messages read before others get a turn: a peer that sends without pause never makes ``receive`` wait."""
CLEAN_CODES = frozenset({0, 1000, 1001, 1005})
"""Close codes that end the stream; aiohttp gives 0 for a close frame without a code."""

log = telemetry.logger("stream")


async def stream(request: web.Request) -> web.StreamResponse:
    """Refuse by status what can be known now, then upgrade and talk."""
    role = request.query.get("role", "speaker")
    if role == "viewer":
        return await watch(request)
    if role != "speaker":
        raise BadRequest("option 'role' is neither speaker nor viewer", hint="leave it out to speak")
    await request.app[STREAMS].turns.mine()
    interview = interview_of(request)
    options, token, unknown = _asked(request)
    holder = request.app[DOOR].holder(request)
    if token is None:  # first of all: a browser cannot see why its handshake failed, and asks again plainly
        request.app[STREAMS].foresee(interview, options)
        request.app[STARTS].foresee(holder)
    check_upgrade(request)
    async with request.app[SHARES].hold(holder, resumes=token is not None):
        if token is None:
            await request.app[STARTS].count(holder)
        return await _serve(request, interview, options, token, unknown)


async def _serve(
    request: web.Request, interview: str, options: Options, token: str | None, unknown: list[str]
) -> web.StreamResponse:
    streams = request.app[STREAMS]
    if token is None:
        driver, token = await streams.begin(interview, options)
    else:
        driver = await _resumed(request, interview, token)
    socket = Socket()
    try:
        await socket.prepare(request)
    except BaseException as error:  # the client left during the handshake; nobody else can know a new stream's token
        driver.order(commands.Disconnect(clean=driver.key.epoch == 1))
        if isinstance(error, ConnectionError):
            return web.Response()  # nobody gets it
        raise
    dialect = NativeDialect(_greeting(request, driver, token), driver.machine.options)
    await _talk(request, socket, dialect, driver, unknown)
    return socket


async def _resumed(request: web.Request, interview: str, token: str) -> Driver:
    """Take the stream over; who comes after its end learns how it ended, from the answer that refuses it."""
    try:
        return await request.app[STREAMS].resume(interview, token)
    except StreamEnded as error:  # the token was the right one
        store, name = request.app[STORE], token.partition(".")[0]
        (stream,) = [one for one in await store.streams(interview) if one.id == name]
        finals = [kept.final for kept in await store.finals(interview) if kept.stream == name]
        newest = sorted(finals, key=lambda final: final.stop)[-MAX_READY_FINALS:]
        error.more = {"ended": ended_body(stream.options, stream.position, len(finals), newest)}
        raise


def _asked(request: web.Request) -> tuple[Options, str | None, list[str]]:
    """Options, resume token and unknown names of the query."""
    query = {name: request.query.getall(name)[-1] for name in request.query}
    token = query.pop("resume", None)
    query.pop("role", None)
    options, unknown = merge_options(Options(), query, strict=False)
    return options, token, unknown


def _greeting(request: web.Request, driver: Driver, token: str) -> Greeting:
    session = request.app[SESSION]
    about: About = driver.about
    return Greeting(
        session=f"s-{secrets.token_hex(6)}",
        stream=driver.key.stream,
        interview=driver.key.interview,
        resume_token=token,
        engine={"name": about.name, "model": about.model, "device": about.device, "note": about.note},
        limits={
            "binary_bytes": BINARY_BYTES,
            "text_bytes": TEXT_BYTES,
            "messages_per_s": session.max_messages_per_s,
            "idle_timeout_s": session.idle_timeout_s,
            "resume_window_s": session.resume_window_s,
            "max_stream_s": float(session.max_stream_s),
        },
    )


async def _talk(request: web.Request, socket: Socket, dialect: Dialect, driver: Driver, unknown: list[str]) -> None:
    transport = request.transport
    if transport is None:
        driver.order(commands.Disconnect(clean=driver.key.epoch == 1))
        return
    speaker = Speaker(socket, transport, dialect, asyncio.get_running_loop())
    speakers = request.app[SPEAKERS]
    speakers.add(speaker)
    clean = False
    try:
        socket.before_broken = _word_before_close(socket, dialect)
        driver.open(speaker)
        for ignored in unknown_options(unknown):
            await driver.command(ignored)
        reader = _Reader(request, socket, dialect, driver, speaker)
        try:
            clean = await reader.run()
        finally:
            await reader.rest(clean)
    finally:
        speakers.discard(speaker)
        try:
            if driver.outlet is speaker:  # the session did not close it: the peer left, or was cut
                driver.part(speaker)
                driver.order(commands.Disconnect(clean=clean))
        finally:
            await speaker.done()


def _word_before_close(socket: Socket, dialect: Dialect) -> Callable[[str, str], Awaitable[None]]:
    async def tell(code: str, message: str) -> None:
        failed = events.Failed(code=code, message=message, retryable=True, hint="docs/protocol.md names the limits")
        for text in dialect.say(failed, 0.0):
            await socket.send_str(str(text))

    return tell


class _Reader:
    """Reads one socket until it ends."""

    def __init__(
        self, request: web.Request, socket: Socket, dialect: Dialect, driver: Driver, speaker: Speaker
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = socket
        self._dialect = dialect
        self._driver = driver
        self._speaker = speaker
        self._per_s = request.app[SESSION].max_messages_per_s
        self._budget = Budget(self._per_s, self._loop.time())
        messages = request.app[METRICS].messages
        self._binary, self._text = messages.labels("binary"), messages.labels("text")
        self._look = Look() if driver.key.epoch == 1 else None
        self._guess = "encoding" not in request.query and driver.machine.fresh
        self._intake = Intake(driver, request.app[DECODERS], self._give_up, guess=lambda: self._guess)
        self._taken = 0
        """Binary messages not counted yet: a counter's lock once a turn instead of once a frame."""

    async def run(self) -> bool:
        """Read until the peer leaves or we close.

        Returns:
            Whether it left by a close frame that ends the stream.
        """
        try:
            while True:
                for _ in range(MESSAGES_PER_TURN):
                    message = await self._socket.receive()
                    kind = message.type
                    self._speaker.last_seen = self._loop.time()
                    if kind is WSMsgType.CLOSE:
                        return message.data in CLEAN_CODES
                    if kind in LEFT or self._speaker.closing:
                        return False
                    try:
                        await (self._take_binary(message.data) if kind is WSMsgType.BINARY else self._take(message))
                    except StreamsrvError as error:
                        self._refuse(error)
                    except ConnectionError:  # gone before it was answered
                        return False
                    except Exception as error:
                        log.error("stream.failed", error=error, stream=self._driver.key.stream)
                        self._refuse(ServerFault("the server failed inside"))
                self._count()
                await asyncio.sleep(0)
        finally:
            self._count()

    async def _take_binary(self, data: bytes) -> None:
        """The way of every frame of audio: what is left out here is saved 50 times a second for each speaker."""
        self._taken += 1
        if len(data) < FREE_BYTES:
            self._spend()
            if not data:
                return await self._driver.command(commands.KeepAlive())
        if not self._intake.plain:
            data = await self._decoded(data)
            if not data:
                return
        if self._look is not None:
            self._examine(data)
        for command in self._dialect.hear(data, self._speaker.last_seen):
            await self._obey(command)

    async def _take(self, message: WSMessage) -> None:
        kind, data = message.type, message.data
        if kind is WSMsgType.TEXT:
            self._text.inc()
            self._spend()
            for command in self._dialect.hear(data, self._speaker.last_seen):
                await self._obey(command)
        elif kind is WSMsgType.PING:
            self._spend()
            await self._socket.pong(data)
        elif kind is WSMsgType.PONG:
            self._spend()
        else:
            raise WrongMessageKind("a message is neither binary nor text")

    async def _obey(self, command: commands.AnyCommand) -> None:
        if isinstance(command, commands.Audio):
            self._speaker.held = True
            await self._driver.audio(command.data)
            self._speaker.held = False
            self._speaker.last_seen = self._loop.time()
        else:
            if isinstance(command, commands.Configure) and "encoding" in command.named:
                self._guess = False
            elif isinstance(command, commands.Finish):
                await self._intake.rest()
            await self._driver.command(command)

    async def _decoded(self, data: bytes) -> bytes:
        """Samples of a first message, nothing of a container: its decoder hands them on."""
        self._speaker.held = True
        try:
            return await self._intake.take(data)
        finally:
            self._speaker.held = False
            self._speaker.last_seen = self._loop.time()

    async def rest(self, clean: bool) -> None:
        """The peer has gone: a container is heard to its end when it left well."""
        try:
            if clean and self._driver.outlet is self._speaker:
                await self._intake.rest()
        except StreamsrvError as error:
            self._give_up(error)
        finally:
            await self._intake.close()

    def _give_up(self, error: StreamsrvError) -> None:
        """The container cannot be decoded: for good when that is its own fault."""
        if self._driver.outlet is self._speaker:
            self._driver.order(abortion(error, lasting=isinstance(error, ClientFault)))

    def _examine(self, data: bytes) -> None:
        """The first audio of a stream: is it what the peer says it is?"""
        if self._look is None:
            return
        for code, message in self._look.at(data, self._driver.machine.options):
            self._speaker.put(events.Warned(code=code, message=message))
        if self._look.done:
            self._look = None

    def _refuse(self, error: StreamsrvError) -> None:
        """The session tells the peer and closes; one that is ending anyway has nothing more to tell."""
        self._driver.order(abortion(error))
        if self._speaker.closing:
            log.info("stream.aborted", error=error.code, stream=self._driver.key.stream)
        elif isinstance(error, Flood):
            self._speaker.cut(error.code)

    def _count(self) -> None:
        self._binary.inc(self._taken)
        self._taken = 0

    def _spend(self) -> None:
        if not self._budget.spend(self._speaker.last_seen):
            raise Flood(f"more than {self._per_s} small messages in a second")
