"""One open WebSocket to the server, from its ``ready`` to its end."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine

import aiohttp
from yarl import URL

from streamsrv.client.clock import Time
from streamsrv.client.messages import AnyMessage, Closed, Failed, GoAway, NotUnderstood, Ready, decode
from streamsrv.client.refusals import Cut, Refused, Unreachable, refused

HANDSHAKE_S = 15.0
"""From connecting to ``ready``; a server that takes longer is unreachable."""
CLOSE_S = 2.0
"""How long the server's close frame is waited for."""
MOST_MESSAGE_BYTES = 67_108_864
"""Largest message taken from a server: ``ready`` of a long stream holds all its finals.  A larger one is a cut."""
MOST_REFUSAL_BYTES = 16_777_216
"""As much of a refusal's body is read; the rest is left.  That of a stream that ended holds its newest finals."""
AUDIO_BYTES = 32_768
"""Largest audio message sent: a second at 16 kHz, far below every server's limit."""

NO_CODE = 1005
"""A close frame without a code; aiohttp calls it 0."""
BROKEN = (ConnectionError, aiohttp.ClientError)
"""What sending raises once a connection is gone."""


class Link:
    """A connection that serves.  ``receive`` is for one task, the senders for others."""

    def __init__(self, http: aiohttp.ClientSession, ws: aiohttp.ClientWebSocketResponse, time: Time) -> None:
        self._http, self._ws, self._time = http, ws, time
        self._error: Failed | None = None
        self._lost = ""
        self._second, self._messages = 0.0, 0
        self.ready: Ready
        self.opened_at = self.heard_at = self.sent_at = time.now()
        self.leave_at: float | None = None
        """When a server that said ``goaway`` is left if it has not closed."""
        self.waiting = False
        """Whether the server's next message is waited for."""
        self.writing = False
        """Whether audio is held up by back-pressure, or on its way."""

    async def greet(self) -> None:
        """Take ``ready``, the first message."""
        while not isinstance(first := await self.receive(), Ready):
            if not isinstance(first, Failed):
                raise NotUnderstood("the server's first message was not 'ready'")
        self.ready = first

    async def receive(self) -> AnyMessage:
        """The server's next message.

        Raises:
            Cut: the connection ended.
            NotUnderstood: the message is not of this protocol.
        """
        while True:
            # What a full inbox held back is no silence of the server: the waiting begins anew.
            self.heard_at, self.waiting = self._time.now(), True
            message = await self._ws.receive()
            self.heard_at, self.waiting = self._time.now(), False
            match message.type:
                case aiohttp.WSMsgType.TEXT:
                    return self._note(decode(message.data))
                case aiohttp.WSMsgType.PING:
                    try:
                        await self._ws.pong(message.data)
                    except BROKEN:
                        raise Cut(None, self._error, self._lost) from None
                case aiohttp.WSMsgType.PONG:
                    pass
                case aiohttp.WSMsgType.CLOSE:
                    raise Cut(message.data or NO_CODE, self._error)
                case aiohttp.WSMsgType.BINARY:
                    raise NotUnderstood("the server sent a binary message")
                case _:
                    raise Cut(None, self._error, self._lost)

    def _note(self, event: AnyMessage) -> AnyMessage:
        if isinstance(event, Failed):
            self._error = event
        elif isinstance(event, GoAway):
            self.leave_at = self.heard_at + event.within_ms / 1000
        return event

    def farewell(self, closed: Closed) -> bool:
        """Whether ``closed`` ends the stream as wished: no ``error`` came before it."""
        return self._error is None and closed.cause != "error"

    async def send_audio(self, data: bytes) -> None:
        """Send audio; waits while the server does not read (back-pressure)."""
        await self._write(self._ws.send_bytes(data))

    async def send_command(self, kind: str) -> None:
        """Send ``flush``, ``keepalive`` or ``finish``."""
        await self._write(self._ws.send_str(f'{{"type":"{kind}"}}'))

    async def _write(self, sending: Coroutine[object, object, None]) -> None:
        self.writing = True
        try:
            await self._spread()
        except BaseException:
            sending.close()
            raise
        await sending
        self.writing = False
        self.sent_at = self._time.now()

    async def _spread(self) -> None:
        """Stay at half the messages a second the server takes; what waits meanwhile goes in one message."""
        now = self._time.now()
        if now - self._second >= 1.0:
            self._second, self._messages = now, 0
        self._messages += 1
        if self._messages > max(1, self.ready.limits.messages_per_s // 2):
            await self._time.sleep(self._second + 1.0 - now)

    async def ping(self) -> None:
        await self._ws.ping()

    def cut(self, why: str) -> None:
        """Break the connection without a close frame, so that the server keeps the stream for a resume."""
        self._lost = why
        taken: socket.socket | None = self._ws.get_extra_info("socket")
        if taken is not None:
            try:
                taken.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is gone already

    async def close(self) -> None:
        """Close with 1000, which ends the stream; does nothing more once the connection is gone."""
        try:
            async with asyncio.timeout(2 * CLOSE_S):
                await self._ws.close()
        except (TimeoutError, *BROKEN):
            pass
        finally:
            await self._http.close()


async def open_link(url: URL, api_key: str | None, time: Time) -> Link:
    """Connect and wait for ``ready``.

    Raises:
        Refused: the server answered with a status other than 101.
        Unreachable: nobody answered, or not in time.
        Cut: the connection ended before ``ready``.
    """
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    asked = True
    http = aiohttp.ClientSession(
        raise_for_status=_refuse, timeout=aiohttp.ClientTimeout(sock_connect=HANDSHAKE_S), middlewares=(_once(),)
    )
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            return await _shake_hands(http, url, headers, time)
    except TimeoutError:
        failure = f"{url.host}:{url.port} gave no answer within {HANDSHAKE_S:g} s"
    except (OSError, aiohttp.ClientError) as broken:
        failure = f"{url.host}:{url.port} cannot be reached: {_reason(broken)}"
        asked = not isinstance(broken, aiohttp.ClientConnectorError)
    except BaseException:
        await http.close()
        raise
    await http.close()
    raise Unreachable(failure, asked=asked)


def _once() -> aiohttp.ClientMiddlewareType:
    """Asks each address once.

    By itself aiohttp asks again when the connection breaks before the answer.  A server that is still busy with the
    first request takes the two for rivals, and nobody here would know that there were two.
    """
    failures: dict[URL, Exception] = {}

    async def ask(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        if failure := failures.get(request.url):
            raise failure
        try:
            return await handler(request)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as failure:
            failures[request.url] = failure
            raise

    return ask


async def _shake_hands(http: aiohttp.ClientSession, url: URL, headers: dict[str, str], time: Time) -> Link:
    ws = await http.ws_connect(
        url,
        headers=headers,
        autoping=False,
        max_msg_size=MOST_MESSAGE_BYTES,
        timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
    )
    link = Link(http, ws, time)
    await link.greet()
    return link


async def _refuse(response: aiohttp.ClientResponse) -> None:
    """Read why the upgrade was refused; aiohttp by itself would tell the status alone."""
    if response.status == 101:
        return
    body = bytearray()
    while len(body) < MOST_REFUSAL_BYTES and (piece := await response.content.read(MOST_REFUSAL_BYTES - len(body))):
        body += piece
    answer: Refused = refused(response.status, bytes(body), response.headers.get("Retry-After"))
    raise answer


def _reason(failure: Exception) -> str:
    """The system's words without addresses and without the request's headers."""
    while isinstance(failure, aiohttp.ClientConnectorError):
        failure = failure.os_error
    if isinstance(failure, OSError) and failure.errno and failure.errno > 0:
        return os.strerror(failure.errno).lower()
    return type(failure).__name__
