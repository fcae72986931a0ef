"""``ws /transcription/stream/{interview}``: from the handshake to the last event."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

from aiohttp import WSMessage, WSMsgType, web

from streamsrv import commands, events, telemetry
from streamsrv.commands import Options
from streamsrv.dialects.base import Dialect
from streamsrv.dialects.native import BINARY_BYTES, TEXT_BYTES, Greeting, NativeDialect, merge_options, unknown_options
from streamsrv.engines.base import About
from streamsrv.errors import Flood, StreamsrvError, WrongMessageKind
from streamsrv.runtime.driver import Driver, abortion
from streamsrv.runtime.settings import SessionSettings
from streamsrv.runtime.streams import Streams
from streamsrv.server.answers import METRICS
from streamsrv.server.budget import FREE_BYTES, Budget
from streamsrv.server.names import interview_of
from streamsrv.server.socket import Socket, check_upgrade
from streamsrv.server.speaker import Speaker

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
    interview = interview_of(request)
    check_upgrade(request)
    options, token, unknown = _asked(request)
    streams = request.app[STREAMS]
    if token is None:
        driver, token = await streams.begin(interview, options)
    else:
        driver = await streams.resume(interview, token)
    socket = Socket()
    try:
        await socket.prepare(request)
    except BaseException:  # the client left during the handshake, and nobody else can know the stream's token
        driver.order(commands.Disconnect(clean=driver.key.epoch == 1))
        raise
    dialect = NativeDialect(_greeting(request, driver, token), driver.machine.options)
    await _talk(request, socket, dialect, driver, unknown)
    return socket


def _asked(request: web.Request) -> tuple[Options, str | None, list[str]]:
    """Options, resume token and unknown names of the query."""
    query = {name: request.query.getall(name)[-1] for name in request.query}
    token = query.pop("resume", None)
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
        clean = await _Reader(request, socket, dialect, driver, speaker).run()
    finally:
        speakers.discard(speaker)
        if not speaker.closing:
            driver.part(speaker)
            driver.order(commands.Disconnect(clean=clean))
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

    async def run(self) -> bool:
        """Read until the peer leaves or we close.

        Returns:
            Whether it left by a close frame that ends the stream.
        """
        turn = 0
        while True:
            message = await self._socket.receive()
            kind = message.type
            self._speaker.last_seen = self._loop.time()
            if kind is WSMsgType.CLOSE:
                return message.data in CLEAN_CODES
            if kind in (WSMsgType.CLOSED, WSMsgType.CLOSING, WSMsgType.ERROR):
                return False
            try:
                await self._take(message)
            except StreamsrvError as error:
                self._driver.order(abortion(error))
            if self._speaker.closing:
                return False
            turn += 1
            if turn >= MESSAGES_PER_TURN:
                turn = 0
                await asyncio.sleep(0)

    async def _take(self, message: WSMessage) -> None:
        kind, data = message.type, message.data
        if kind is WSMsgType.BINARY:
            self._binary.inc()
            if len(data) < FREE_BYTES:
                self._spend()
            for command in self._dialect.hear(data, self._speaker.last_seen):
                await self._obey(command)
        elif kind is WSMsgType.TEXT:
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
            await self._driver.command(command)

    def _spend(self) -> None:
        if not self._budget.spend(self._speaker.last_seen):
            raise Flood(f"more than {self._per_s} small messages in a second")

