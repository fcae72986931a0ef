"""What server, zygote and workers say to each other: length-prefixed msgpack between server and worker, one datagram
per message between server and zygote.

All of it stays on one machine inside socket pairs made by us; the bounds below guard against our own mistakes.
"""

from __future__ import annotations

import socket
from typing import Final

import msgspec

from streamsrv.engines._sphinx.voice import Voice

FRAME_BYTES: Final = 1 << 20
"""Longest message body; a longer one is a broken peer: the worker leaves, the server kills the worker."""
PREFIX_BYTES: Final = 4
"""A message's length, unsigned, big endian, before its body."""
PIECE_SAMPLES: Final = 80_000
"""Most samples in one ``Ask`` (5 s), so that each deadline covers little work; longer audio goes in several."""
DATAGRAM_BYTES: Final = 4096
"""Longest message between server and zygote."""


class Ask(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The next audio of a segment."""

    begin: Voice | None = None
    """Opens a new segment with what is known of the speaker; whatever was open is forgotten."""
    samples: bytes = b""
    """int16 little-endian, 16 000 Hz, mono."""
    final: bool = False
    """The segment ends after these samples."""
    tell: bool = True
    """Whether the words so far are wanted."""


class Heard(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One word of an answer; times in samples from the start of the segment."""

    text: str
    start: int
    stop: int
    confidence: float
    estimated: bool


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to one ``Ask``."""

    words: tuple[Heard, ...] = ()
    voice: Voice | None = None
    """After a final: what is now known of the speaker."""
    failed: str = ""
    """Type of the exception when the decoder failed; the segment is gone."""


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The zygote has built its decoder."""


class Unfit(msgspec.Struct, frozen=True, kw_only=True, tag="unfit"):
    """The zygote cannot build a decoder; it leaves."""

    reason: str
    missing: bool = False
    """PocketSphinx is not installed."""


class Born(msgspec.Struct, frozen=True, kw_only=True, tag="born"):
    """A worker was forked; its socket and its pidfd come with this message."""

    pid: int


class Barren(msgspec.Struct, frozen=True, kw_only=True, tag="barren"):
    """No worker could be forked (memory, process limit)."""

    errno: int


News = Ready | Unfit | Born | Barren
FORK: Final = b"fork"
"""The only request to a zygote."""

_encoder = msgspec.msgpack.Encoder()
asks = msgspec.msgpack.Decoder(Ask)
answers = msgspec.msgpack.Decoder(Told)
news = msgspec.msgpack.Decoder(News)


def pack(message: Ask | Told) -> bytes:
    """A message with its length before it."""
    body = _encoder.encode(message)
    return len(body).to_bytes(PREFIX_BYTES, "big") + body


def datagram(message: News) -> bytes:
    """A zygote's message."""
    return _encoder.encode(message)


def body_length(prefix: bytes) -> int:
    """Length of the body that follows ``prefix``.

    Raises:
        ValueError: it is over ``FRAME_BYTES``.
    """
    length = int.from_bytes(prefix, "big")
    if length > FRAME_BYTES:
        raise ValueError(f"a message of {length} bytes is over the limit of {FRAME_BYTES}")
    return length


def receive(sock: socket.socket, count: int) -> bytes:
    """Exactly ``count`` bytes of a blocking socket.

    Raises:
        EOFError: the peer is gone.
    """
    data = bytearray()
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
