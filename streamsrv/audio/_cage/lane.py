"""The server's end of one recording: what came back from its decoder, and what the decoder has still to take.

Bounds: ``wire.CREDITS`` pieces of audio and ``wire.WINDOW_BYTES`` of input.  A reader that stops makes the decoder
stop, and a decoder that stops makes ``feed`` wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from streamsrv.audio._cage import reasons, wire
from streamsrv.audio._cage.reasons import NAME
from streamsrv.audio._cage.settings import CageSettings
from streamsrv.audio._cage.wire import Frame, Say
from streamsrv.errors import StreamsrvError

MOST_WARNINGS: Final = len(reasons.WARNINGS)
Send = Callable[[Say, int, bytes], None]


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """What a recording's audio is: interleaved samples of ``channels`` at ``rate_hz``."""

    rate_hz: int
    channels: int
    container: str
    """What ``sniff`` calls it."""
    codec: str
    """FFmpeg's name: ``opus``, ``pcm_s16le``."""
    duration_s: float | None
    """What the header claims, which may be wrong; ``None``: it says nothing."""


class _Failure(msgspec.Struct, frozen=True):
    reason: str
    detail: int | str | None = None


_layouts = msgspec.json.Decoder(Layout)
_failures = msgspec.json.Decoder(_Failure)


class Lane:
    """State of one recording.  All of it on the event loop.

    Args:
        number: the lane's name on the wire.
        settings: limits, for checks and messages.
        send: puts a frame on the wire, without waiting.
        on_free: called once when the decoder has let go of it.
    """

    def __init__(self, number: int, settings: CageSettings, send: Send, on_free: Callable[[], None]) -> None:
        self.number = number
        self.layout: Layout | None = None
        self.warnings: tuple[str, ...] = ()
        self.since: float | None = None
        """When its decoder was first seen owing something, with nothing heard since; the watch's own note."""
        self._settings = settings
        self._send = send
        self._on_free = on_free
        self._pieces: deque[bytes] = deque()
        self._granted = wire.CREDITS
        self._unread = 0
        self._open_ended = False
        self._closed = False
        self._free = False
        self._done = False
        self._error: StreamsrvError | None = None
        self._news = asyncio.Event()

    def opened(self, *, live: bool) -> bytes:
        """The body of ``OPEN``."""
        self._open_ended = live
        limits = self._settings
        return msgspec.json.encode(
            {
                "live": live,
                "max_duration_s": limits.max_duration_s,
                "max_rate_hz": limits.max_rate_hz,
                "max_channels": limits.max_channels,
                "cpu_s": limits.cpu_s,
            }
        )

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self._done or self._error is not None

    @property
    def owed(self) -> bool:
        """Whether it is the decoder's turn."""
        if self._free:
            return False
        if self._closed or self.over:
            return True
        return self._granted > 0 and (not self._open_ended or self._unread > 0)

    # --- the owner -------------------------------------------------------------------------------------------

    async def known(self) -> Layout:
        """The layout, once there is one.

        Raises:
            StreamsrvError: the recording is refused, or its decoder is gone.
        """
        while self.layout is None:
            if self._error is not None:
                raise self._error
            if self._closed:
                raise reasons.lost()
            await self._turn()
        return self.layout

    async def read(self) -> bytes:
        """The next piece; empty at the end.

        Raises:
            StreamsrvError: after all pieces that came before it.
        """
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._done or self._closed:
                return b""
            await self._turn()
        piece = self._pieces.popleft()
        if not self.over:
            self._granted += 1
            self._send(Say.MORE, self.number, wire.count(1))
        return piece

    async def feed(self, data: bytes) -> None:
        """Hand over input, waiting while the window is full.

        Raises:
            StreamsrvError: the recording is refused, or its decoder is gone.
        """
        rest = memoryview(data)
        while rest:
            if self._error is not None:
                raise self._error
            if self._done or self._closed:
                return
            room = min(wire.WINDOW_BYTES - self._unread, wire.BODY_BYTES, len(rest))
            if room <= 0:
                await self._turn()
                continue
            self._unread += room
            self._send(Say.DATA, self.number, bytes(rest[:room]))
            rest = rest[room:]

    def end(self) -> None:
        """No more input."""
        if self._open_ended:
            self._open_ended = False
            self._send(Say.END, self.number, b"")

    def close(self) -> None:
        """Nobody wants the rest."""
        if not self._closed:
            self._closed = True
            self._pieces.clear()
            if not self._free:
                self._send(Say.CLOSE, self.number, b"")
            self._news.set()

    async def _turn(self) -> None:
        self._news.clear()
        await self._news.wait()

    # --- the decoder -----------------------------------------------------------------------------------------

    def hear(self, frame: Frame) -> None:
        """One frame of this lane.

        Raises:
            ValueError: the child breaks the rules.
        """
        self.since = None
        self._news.set()
        if frame.kind is Say.FREE:
            self._freed()
        elif self.over:
            raise ValueError("a frame behind the last one")
        elif frame.kind is Say.AUDIO:
            self._hear_audio(frame.body)
        elif frame.kind is Say.TOOK:
            self._hear_took(wire.number(frame.body))
        elif frame.kind is Say.LAYOUT and self.layout is None:
            self.layout = _checked(_layouts.decode(frame.body), self._settings)
        elif frame.kind is Say.WARN and len(self.warnings) < MOST_WARNINGS:
            self._hear_warning(frame.body)
        elif frame.kind is Say.DONE and self.layout is not None:
            self._done = True
        elif frame.kind is Say.FAILED:
            failure = _failures.decode(frame.body)
            self.fail(reasons.complaint(failure.reason, failure.detail, self._settings))
        else:
            raise ValueError(f"{frame.kind.name} is out of place")

    def _hear_audio(self, piece: bytes) -> None:
        if self._granted <= 0 or self.layout is None or not piece or len(piece) % (2 * self.layout.channels):
            raise ValueError("audio without credit, layout or whole frames")
        self._granted -= 1
        if not self._closed:
            self._pieces.append(piece)

    def _hear_took(self, count: int) -> None:
        if count > self._unread:
            raise ValueError("more was taken than given")
        self._unread -= count

    def _hear_warning(self, body: bytes) -> None:
        word = body.decode("ascii")
        if word not in reasons.WARNINGS:
            raise ValueError("an unknown warning")
        self.warnings = (*self.warnings, word)

    def _freed(self) -> None:
        self._free = True
        if not self.over and not self._closed:
            self._error = reasons.lost()
        self._on_free()

    def fail(self, error: StreamsrvError) -> None:
        """It ends with this error, unless it has ended."""
        if not self.over:
            self._error = error
        self._news.set()

    def abandon(self, error: StreamsrvError) -> None:
        """Its process is gone."""
        self.fail(error)
        if not self._free:
            self._free = True
            self._on_free()


def _checked(layout: Layout, settings: CageSettings) -> Layout:
    """A child's claim, inside what was allowed.

    Raises:
        ValueError: it is not.
    """
    fits = 8_000 <= layout.rate_hz <= settings.max_rate_hz and 1 <= layout.channels <= settings.max_channels
    if not fits or not NAME.fullmatch(layout.container) or not NAME.fullmatch(layout.codec):
        raise ValueError("a layout outside the limits")
    return layout
