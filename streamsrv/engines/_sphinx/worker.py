"""A worker's life: answer one ``Ask`` after the other, leave when the server is gone."""

from __future__ import annotations

import socket

import msgspec

from streamsrv.engines._sphinx import wire
from streamsrv.engines._sphinx.ear import Ear


def serve(ear: Ear, sock: socket.socket) -> None:
    """Answer until the server closes its end."""
    try:
        while True:
            length = wire.body_length(wire.receive(sock, wire.PREFIX_BYTES))
            ask = wire.asks.decode(wire.receive(sock, length))
            sock.sendall(wire.pack(answer(ear, ask)))
    except (EOFError, OSError, ValueError, msgspec.MsgspecError):
        return


def answer(ear: Ear, ask: wire.Ask) -> wire.Told:
    """What the ear makes of it; a failure of the decoder is told by its type alone."""
    try:
        if ask.begin is not None:
            ear.begin(ask.begin)
        ear.take(ask.samples)
        if not ask.final:
            return wire.Told(words=ear.words() if ask.tell else ())
        words, voice = ear.end()
        return wire.Told(words=words, voice=voice)
    except Exception as failure:
        return wire.Told(failed=type(failure).__name__)
