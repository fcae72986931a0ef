"""``ws /transcription/stream/{interview}?role=viewer``: an interview as it happens, for who only listens."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress

from aiohttp import WSMsgType, web

from streamsrv import commands, events, telemetry
from streamsrv.dialects.viewer import KnownStream, Said, ViewerDialect
from streamsrv.errors import BadRequest, Flood, StreamsrvError, WrongMessageKind
from streamsrv.runtime.fanout import Fanout, Watch
from streamsrv.runtime.troubles import abortion, farewell
from streamsrv.server.answers import METRICS
from streamsrv.server.budget import Budget
from streamsrv.server.names import interview_of
from streamsrv.server.peer import LEFT, SEND_WITHIN_S, Peer
from streamsrv.server.socket import Socket, check_upgrade
from streamsrv.server.transcripts import STORE
from streamsrv.stores.base import FinalName, TranscriptStore

FANOUT = web.AppKey("fanout", Fanout)
VIEWERS: web.AppKey[set[Viewer]] = web.AppKey("viewers", set)

MESSAGES_PER_S = 20
"""What a viewer may send in a second; it has nothing to say but that it is here."""
MAX_NAME = 300
"""Characters of ``after`` looked at."""
MAX_WARNED = 256
"""Characters of unknown options told."""

log = telemetry.logger("viewer")


def after_of(name: str) -> FinalName | None:
    """The final named ``stream:channel:segment``; ``None`` for an empty name.

    Raises:
        BadRequest: not a final's name.
    """
    if not name:
        return None
    stream, *numbers = name[:MAX_NAME].rsplit(":", 2)
    if stream and len(numbers) == 2 and all(number.isdecimal() and len(number) < 10 for number in numbers):
        return FinalName(stream, int(numbers[0]), int(numbers[1]))
    raise BadRequest(
        "option 'after' is not stream:channel:segment", hint="take the three from a final, or leave it out"
    )


async def known(store: TranscriptStore, interview: str) -> tuple[str | None, tuple[KnownStream, ...]]:
    """What ``ready`` tells of an interview: its status (``None``: not begun) and its streams."""
    found, streams = await store.interview(interview), await store.streams(interview)
    return None if found is None else found.status, tuple(
        KnownStream(
            stream=stream.id,
            order=stream.order,
            speaker=stream.options.speaker,
            language=stream.options.language,
            channels=stream.options.tracks,
            status=stream.status,
            started_utc_ms=stream.started_ms,
        )
        for stream in streams
    )


async def watch(request: web.Request) -> web.StreamResponse:
    """Refuse by status what can be known now, then upgrade and tell."""
    interview = interview_of(request)
    check_upgrade(request)
    after = after_of(request.query.get("after", ""))
    with request.app[FANOUT].watch(interview, after) as watching:
        status, streams = await known(request.app[STORE], interview)
        socket = Socket()
        try:
            await socket.prepare(request)
        except ConnectionError:  # the viewer left during the handshake
            return web.Response()
        transport = request.transport
        if transport is not None:
            dialect = ViewerDialect(f"s-{secrets.token_hex(6)}", interview)
            viewer = Viewer(socket, transport, dialect, watching)
            socket.before_broken = viewer.word
            _warn_of_unknown(request.query, watching)
            with suppress(ConnectionError):
                await _attend(request, viewer, dialect.ready(status, streams))
    return socket


async def _attend(request: web.Request, viewer: Viewer, ready: Said) -> None:
    viewers = request.app[VIEWERS]
    viewers.add(viewer)
    text = request.app[METRICS].messages.labels("text")
    telling = asyncio.create_task(viewer.tell(ready))
    try:
        await viewer.listen(text.inc)
    finally:
        viewers.discard(viewer)
        if not viewer.ending:
            telling.cancel()
        with suppress(asyncio.CancelledError):
            await telling
        viewer.end()


def _warn_of_unknown(query: Mapping[str, str], watching: Watch) -> None:
    unknown = ", ".join(name[:40] for name in query if name not in ("role", "after"))
    if unknown:
        message = f"options not known to viewers and ignored: {unknown[:MAX_WARNED]}"
        watching.note(events.Warned(code="unknown_option", message=message))


class Viewer(Peer):
    """One viewer on a WebSocket: one task tells it what happens, one listens for its pings and its end."""

    cut_line = "viewer.cut"

    def __init__(self, ws: Socket, transport: asyncio.Transport, dialect: ViewerDialect, watching: Watch) -> None:
        super().__init__(ws, transport, asyncio.get_running_loop())
        self._dialect = dialect
        self._watching = watching
        self._budget = Budget(MESSAGES_PER_S, self.last_seen)
        self._warned = False
        self.ending = False
        """Whether it is being told that it is over, and why."""

    async def tell(self, ready: Said) -> None:
        """Send what happens, until it is over or the peer is gone."""
        try:
            await self._send(ready)
            while (told := await self._watching.next()) is not None:
                await self._send(self._dialect.say(told.stream, told.event))
        except StreamsrvError as error:
            await self._end(error)
        except ConnectionError:
            self.cut("gone")
        except TimeoutError:
            self.cut("stalled")
        except Exception as error:  # an event that cannot be put into words must not leave a viewer in silence
            log.error("viewer.failed", error=error)
            self.cut("failed")

    async def _end(self, error: StreamsrvError) -> None:
        self.closing = self.ending = True
        try:
            await self._send(self._dialect.say("", farewell(abortion(error))))
            await self.shut(error.close_code, error.code)
        except (ConnectionError, TimeoutError):
            self.cut("stalled")

    async def _send(self, said: Said) -> None:
        async with asyncio.timeout(SEND_WITHIN_S):
            await self._ws.send_str(said[1])

    async def word(self, code: str, message: str) -> None:
        """What is said before the connection of a peer that breaks the protocol is closed."""
        failed = events.Failed(code=code, message=message, retryable=True, hint="docs/protocol.md names the limits")
        await self._send(self._dialect.say("", failed))

    async def listen(self, count: Callable[[], None]) -> None:
        """Read until the peer leaves, or must."""
        while True:
            message = await self._ws.receive()
            self.last_seen = self._loop.time()
            if message.type in LEFT or self.closing:
                return await self.linger()
            try:
                if not self._budget.spend(self.last_seen):
                    raise Flood(
                        f"more than {MESSAGES_PER_S} messages in a second", hint="viewers need not say anything"
                    )
                if message.type is WSMsgType.PING:
                    await self._ws.pong(message.data)
                elif message.type is not WSMsgType.PONG:
                    count()
                    self._hear(message.data)
            except StreamsrvError as error:
                self._watching.dismiss(error, at_once=True)
                return await self.linger()
            await asyncio.sleep(0)  # a peer that sends without pause never makes ``receive`` wait

    def _hear(self, message: str | bytes) -> None:
        if not isinstance(message, str | bytes):
            raise WrongMessageKind("a message is neither binary nor text")
        asked = self._dialect.hear(message, self.last_seen) if message else []
        if self._warned or all(isinstance(command, commands.KeepAlive) for command in asked):
            return
        self._warned = True
        text = "a viewer only listens; what it sent was ignored, and so is what follows"
        self._watching.note(events.Warned(code="viewer", message=text))
