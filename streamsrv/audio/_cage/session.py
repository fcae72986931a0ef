"""One lane inside the child: its credits, its input, and what it sends.  A worker thread runs it from end to end."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from typing import Final, Protocol, TypedDict

from streamsrv.audio._cage import wire
from streamsrv.audio._cage.sniff import HEAD_BYTES
from streamsrv.audio._cage.wire import Say

PIECE_BYTES: Final = 32_768
"""Audio is sent in pieces of about this size while there is more to decode; never more than ``wire.BODY_BYTES``."""


class Spec(TypedDict):
    """What the server allows a lane; the body of ``OPEN``."""

    live: bool
    max_duration_s: float
    max_rate_hz: int
    max_channels: int
    cpu_s: int


class Refused(Exception):
    """The recording is not decoded: a word of ``reasons.REASONS``, and a number or short name that goes with it."""

    def __init__(self, reason: str, detail: int | str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


class Closed(Exception):
    """Nobody wants the rest."""


class Line:
    """The child's end of the socket, shared by the worker threads."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()

    def say(self, kind: Say, lane: int, body: bytes = b"") -> None:
        """Send one frame whole; blocks while the server does not read."""
        with self._lock:
            self._sock.sendall(wire.pack(kind, lane, body))


class Input(Protocol):
    """Where a recording's bytes come from; also what PyAV reads from."""

    def read(self, size: int = -1) -> bytes: ...

    def peek(self) -> bytes:
        """The first ``sniff.HEAD_BYTES``, without taking them."""

    def close(self) -> None: ...


class FileInput:
    """An open descriptor that was handed over.  Seekable."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.lseek(descriptor, 0, os.SEEK_END)
        os.lseek(descriptor, 0, os.SEEK_SET)

    def read(self, size: int = -1) -> bytes:
        return os.read(self._descriptor, size if size >= 0 else wire.WINDOW_BYTES)

    def seek(self, offset: int, whence: int = 0) -> int:
        return os.lseek(self._descriptor, offset, whence)

    def tell(self) -> int:
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def at(self, offset: int, size: int) -> bytes:
        """Bytes at a place, without moving there."""
        return os.pread(self._descriptor, size, offset)

    def peek(self) -> bytes:
        return self.at(0, HEAD_BYTES)

    def close(self) -> None:
        os.close(self._descriptor)


class LiveInput:
    """Bytes as they arrive.  ``read`` waits for at least one; an empty answer is the end."""

    def __init__(self, took: Callable[[int], None]) -> None:
        self._took = took
        self._held = bytearray()
        self._ended = False
        self._news = threading.Condition()
        self.before_waiting: Callable[[], None] = lambda: None
        """Called before a reader has to wait: what was decoded so far must not wait with it."""

    def put(self, data: bytes) -> None:
        """More bytes; the server keeps within the window."""
        with self._news:
            if len(self._held) + len(data) > wire.WINDOW_BYTES:
                raise ValueError("the server overran the window")
            self._held += data
            self._news.notify_all()

    def end(self) -> None:
        """No more bytes."""
        with self._news:
            self._ended = True
            self._news.notify_all()

    def peek(self) -> bytes:
        with self._news:
            self._news.wait_for(lambda: len(self._held) >= HEAD_BYTES or self._ended)
            return bytes(self._held[:HEAD_BYTES])

    def read(self, size: int = -1) -> bytes:
        if not self._held and not self._ended:
            self.before_waiting()
        with self._news:
            self._news.wait_for(lambda: self._held or self._ended)
            data = bytes(self._held if size < 0 else memoryview(self._held)[:size])
            del self._held[: len(data)]
        if data:
            self._took(len(data))
        return data

    def close(self) -> None:
        self.end()


class Session:
    """What a decoder talks to."""

    def __init__(self, line: Line, lane: int, spec: Spec, descriptor: int | None) -> None:
        self.spec = spec
        self.lane = lane
        self._line = line
        self._credits = wire.CREDITS
        self._closed = False
        self._news = threading.Condition()
        self._warned: set[str] = set()
        self._pending = bytearray()
        self._piece = PIECE_BYTES
        self.live: LiveInput | None = None
        self.file: FileInput | None = None
        self.input: Input
        if descriptor is None:
            self.input = self.live = LiveInput(self._took)
            self.live.before_waiting = self.flush
        else:
            self.input = self.file = FileInput(descriptor)

    # --- the main thread ---------------------------------------------------------------------------------------

    def more(self, credits: int) -> None:
        """The server read so many pieces."""
        with self._news:
            self._credits += credits
            self._news.notify_all()

    def shut(self) -> None:
        """Nobody wants the rest."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        if self.live is not None:
            self.live.end()

    # --- the worker thread -------------------------------------------------------------------------------------

    def layout(self, *, rate_hz: int, channels: int, container: str, codec: str, duration_s: float | None) -> None:
        """Tell what the audio will be; before the first of it."""
        self._piece = PIECE_BYTES - PIECE_BYTES % (2 * channels)
        about = {
            "rate_hz": rate_hz,
            "channels": channels,
            "container": container,
            "codec": codec,
            "duration_s": duration_s,
        }
        self._line.say(Say.LAYOUT, self.lane, json.dumps(about).encode())

    def warn(self, word: str) -> None:
        """Tell a word of ``reasons.WARNINGS``, once."""
        if word not in self._warned:
            self._warned.add(word)
            self._line.say(Say.WARN, self.lane, word.encode())

    def emit(self, audio: bytes) -> None:
        """Send audio, in pieces; waits for credit.

        Raises:
            Closed: nobody wants it.
        """
        self._pending += audio
        while len(self._pending) >= self._piece:
            self._send(self._piece)

    def flush(self) -> None:
        """Send what is left of the last piece."""
        if self._pending:
            self._send(len(self._pending))

    def _send(self, size: int) -> None:
        with self._news:
            self._news.wait_for(lambda: self._credits > 0 or self._closed)
            if self._closed:
                raise Closed
            self._credits -= 1
        piece = bytes(memoryview(self._pending)[:size])
        del self._pending[:size]
        self._line.say(Say.AUDIO, self.lane, piece)

    def _took(self, size: int) -> None:
        self._line.say(Say.TOOK, self.lane, wire.count(size))

    def finish(self, refusal: Refused | None) -> None:
        """The lane's last words."""
        if refusal is None:
            self._line.say(Say.DONE, self.lane)
        else:
            said = {"reason": refusal.reason, "detail": refusal.detail}
            self._line.say(Say.FAILED, self.lane, json.dumps(said).encode())

    def leave(self) -> None:
        """Let go of the input, tell that nothing is left."""
        self.input.close()
        self._line.say(Say.FREE, self.lane)
