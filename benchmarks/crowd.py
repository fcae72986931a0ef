"""Many paced speakers in one process that must cost as little as possible: WebSocket clients by hand.

A general client spends on a frame what the server does, and 400 speakers would measure the client.  These send
messages that were framed beforehand, with an empty mask (RFC 6455 asks for masking, not for randomness to be fast),
and read the server's unmasked frames.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
from collections.abc import Sequence
from math import ceil
from typing import Any, Literal

from benchmarks.null import account
from benchmarks.tape import FRAME_BYTES, FRAME_MS

UPGRADE_WITHIN_S = 60.0
CLOSED_WITHIN_S = 60.0
MOST_BROKEN = 20
"""Complaints kept of one speaker; more of them say nothing new."""


def framed(payload: bytes, kind: Literal["text", "binary", "pong", "close"]) -> bytes:
    """One WebSocket message of at most 65 535 bytes, as a client sends it."""
    first = 0x80 | {"text": 1, "binary": 2, "close": 8, "pong": 10}[kind]
    size = len(payload)
    head = struct.pack("!BB", first, 0x80 | size) if size < 126 else struct.pack("!BBH", first, 0xFE, size)
    return head + b"\0\0\0\0" + payload


def framed_tape(tape: bytes) -> list[bytes]:
    """The tape's frames, each as a message."""
    return [framed(tape[at : at + FRAME_BYTES], "binary") for at in range(0, len(tape), FRAME_BYTES)]


class Speaker(asyncio.Protocol):
    """One speaker of a crowd, and the account of what came back.

    Args:
        number: makes its interview.
        messages: the tape, framed.
        phase: the tape's frame it begins with.
        checked: whether the server's finals tell which frames were heard.
    """

    def __init__(self, number: int, messages: Sequence[bytes], phase: int, *, checked: bool) -> None:
        self.sent = 0
        """Frames."""
        self.said: dict[str, int] = {}
        """Messages that came, by type."""
        self.speech_frames = 0
        """Frames inside segments that got a final."""
        self.broken: list[str] = []
        """What is not as it must be."""
        self._number = number
        self._messages = messages
        self._phase = phase
        self._checked = checked
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._writable = asyncio.Event()
        self._writable.set()
        loop = asyncio.get_running_loop()
        self._upgraded: asyncio.Future[None] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()

    # --- life -------------------------------------------------------------------------------------------------------

    async def join(self, port: int) -> None:
        """Connect and wait for the upgrade."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_connection(lambda: self, "127.0.0.1", port)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (
            f"GET /transcription/stream/load-{self._number} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
        )
        self._transport.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        async with asyncio.timeout(UPGRADE_WITHIN_S):
            await self._upgraded

    def speak(self, frames: int = 1) -> None:
        """Send the next frames of the tape; never waits."""
        assert self._transport is not None
        messages, at = self._messages, self._phase + self.sent
        if frames == 1:
            self._transport.write(messages[at % len(messages)])
        else:
            self._transport.write(b"".join(messages[n % len(messages)] for n in range(at, at + frames)))
        self.sent += frames

    async def finish(self) -> None:
        """Say ``finish`` and wait for ``closed``."""
        assert self._transport is not None
        self._transport.write(framed(b'{"type":"finish"}', "text"))
        try:
            async with asyncio.timeout(CLOSED_WITHIN_S):
                await self._closed
        except (TimeoutError, ConnectionError) as failure:
            self._complain(f"no 'closed' came: {type(failure).__name__}")
        self.leave()

    def leave(self) -> None:
        """End the connection with a close frame, as a speaker who is done."""
        if self._transport is not None:
            self._transport.write(framed(struct.pack("!H", 1000), "close"))
            self._transport.close()

    async def drained(self) -> None:
        """Wait until what was sent is gone, but for what the kernel and a small buffer hold."""
        await self._writable.wait()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # --- what comes back --------------------------------------------------------------------------------------------

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        for waiting in (self._upgraded, self._closed):
            if not waiting.done():
                waiting.set_exception(ConnectionError("the server hung up"))
                waiting.exception()  # looked at: not everybody waits for both

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._upgraded.done():
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            self._buffer = rest
            if not head.startswith(b"HTTP/1.1 101"):
                self._upgraded.set_exception(ConnectionError(head.split(b"\r\n")[0].decode()))
                return
            self._upgraded.set_result(None)
        while self._take_message():
            pass

    def _take_message(self) -> bool:
        """One whole message off the buffer; false when there is none."""
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        size, at = buffer[1] & 0x7F, 2
        if size > 125:
            wide = {126: 2, 127: 8}[size]
            size, at = int.from_bytes(buffer[2 : 2 + wide], "big"), 2 + wide
        if len(buffer) < at + size:
            return False
        self._buffer = buffer[at + size :]
        kind, payload = buffer[0] & 0x0F, buffer[at : at + size]
        if kind == 1:
            self._hear(json.loads(payload))
        elif kind == 9 and self._transport is not None:
            self._transport.write(framed(payload, "pong"))
        return True

    def _hear(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "final":
            self._check_final(message)
        elif kind == "closed":
            self._check_closed(message)
        elif kind in ("error", "warning", "audio_gap"):
            self._complain(f"{kind}: {message.get('message')}")
        self.said[kind] = self.said.get(kind, 0) + 1

    def _check_final(self, final: dict[str, Any]) -> None:
        first, rest = divmod(final["start_ms"], FRAME_MS)
        frames = (final["stop_ms"] - final["start_ms"]) // FRAME_MS
        self.speech_frames += frames
        if final["segment"] != self.said.get("final", 0):
            self._complain(f"segment {final['segment']} came as number {self.said.get('final', 0)}")
        heard = final["text"].rpartition(" ")[2]
        wanted = account((self._phase + first) % len(self._messages), frames)
        if self._checked and (heard != wanted or rest):
            self._complain(f"segment {final['segment']}: the engine heard {heard}, sent was {wanted}")

    def _check_closed(self, closed: dict[str, Any]) -> None:
        if closed["audio_ms"] != self.sent * FRAME_MS:
            self._complain(f"{self.sent} frames were sent, {closed['audio_ms'] / FRAME_MS:g} are accounted for")
        if closed["finals"] != self.said.get("final", 0):
            self._complain(f"{closed['finals']} finals are stored, {self.said.get('final', 0)} came")
        if not self._closed.done():
            self._closed.set_result(None)

    def _complain(self, what: str) -> None:
        if len(self.broken) < MOST_BROKEN:
            self.broken.append(f"speaker {self._number}: {what}")


# --- the crowd as one --------------------------------------------------------------------------------------------


async def gather(port: int, messages: Sequence[bytes], sessions: int, *, checked: bool) -> list[Speaker]:
    """Speakers who have joined, each with a phase of its own."""
    step = len(messages) / sessions
    speakers = [Speaker(n, messages, int(n * step), checked=checked) for n in range(sessions)]
    for at in range(0, sessions, 20):
        await asyncio.gather(*(speaker.join(port) for speaker in speakers[at : at + 20]))
    return speakers


async def pace(speakers: Sequence[Speaker], frames: int, *, ramp: int = 0) -> list[float]:
    """Each speaker sends a frame every 20 ms, the speakers evenly spread over them; open loop.

    Args:
        frames: of the speaker who begins first.
        ramp: frames over which the others begin, one after the other.

    Returns:
        How late each round of frames went out, in ms: the generator's own fault.
    """
    loop = asyncio.get_running_loop()
    begin, step = loop.time() + 0.01, FRAME_MS / 1000 / len(speakers)
    late: list[float] = []
    wait = 0.0
    for frame in range(frames):
        base = begin + frame * FRAME_MS / 1000
        for n, speaker in enumerate(speakers[: ceil(len(speakers) * (frame + 1) / (ramp + 1))]):
            wait = base + n * step - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            speaker.speak()
        late.append(1000 * max(0.0, -wait))
        await asyncio.sleep(0)
    return late


async def flood(speakers: Sequence[Speaker], frames: int, *, batch: int = 100) -> None:
    """Each speaker sends so many frames as fast as the server takes them."""

    async def pour(speaker: Speaker) -> None:
        for _ in range(0, frames, batch):
            speaker.speak(batch)
            await speaker.drained()
            await asyncio.sleep(0)

    await asyncio.gather(*map(pour, speakers))


async def finish(speakers: Sequence[Speaker]) -> None:
    """Everybody says ``finish`` and waits."""
    await asyncio.gather(*(speaker.finish() for speaker in speakers))
