"""The decoder process: started as a program of its own, never forked from the server.

It limits itself, loads the decoders, starts its threads, walls itself in, says hello, and only then reads.
"""

from __future__ import annotations

import array  # noqa: F401  -- what socket.recv_fds would import later, when nothing can be opened any more
import json
import os
import queue
import socket
import sys
import threading
from collections.abc import Callable
from typing import Final, NoReturn, TypeAlias

from streamsrv.audio._cage import limits, seccomp, wire
from streamsrv.audio._cage.session import Line, Session
from streamsrv.audio._cage.wire import Frame, Parser, Say

Decode: TypeAlias = Callable[[Session], None]

STACK_BYTES: Final = 2 << 20
"""Of each worker thread; the decoders need a quarter of it."""


class Child:
    """Reads the socket on the main thread and hands lanes to the workers."""

    def __init__(self, sock: socket.socket, at_once: int) -> None:
        self._sock = sock
        self._line = Line(sock)
        self._lanes: dict[int, Session] = {}
        self._at_once = at_once
        # As many entries as lanes: the server opens no more than there are threads.
        self._work: queue.SimpleQueue[Session] = queue.SimpleQueue()

    def start(self) -> None:
        """Load everything, go once through all of it, start the threads."""
        from streamsrv.audio._cage import packets

        packets.warm_up()
        threading.stack_size(STACK_BYTES)
        for _ in range(self._at_once):
            threading.Thread(target=self._toil, args=(packets.decode,), daemon=True).start()

    def hello(self, walls: list[str]) -> None:
        """Tell the server that lanes may come."""
        self._line.say(Say.HELLO, 0, json.dumps({"walls": walls}).encode())

    def serve(self) -> None:
        """Until the server closes the socket."""
        parser = Parser()
        while True:
            data, descriptors, _, _ = socket.recv_fds(self._sock, wire.BODY_BYTES, 1)
            if not data:
                return
            for frame in parser.feed(data):
                self._hear(frame, descriptors)

    def _hear(self, frame: Frame, descriptors: list[int]) -> None:
        if frame.kind is Say.OPEN:
            spec = json.loads(frame.body)
            session = Session(self._line, frame.lane, spec, None if spec["live"] else descriptors.pop())
            self._lanes[frame.lane] = session
            self._work.put(session)
            return
        lane = self._lanes.get(frame.lane)
        if lane is None:
            return  # it ended while this was on its way
        if frame.kind is Say.MORE:
            lane.more(wire.number(frame.body))
        elif frame.kind is Say.CLOSE:
            lane.shut()
        elif lane.live is not None and frame.kind is Say.DATA:
            lane.live.put(frame.body)
        elif lane.live is not None and frame.kind is Say.END:
            lane.live.end()

    def _toil(self, decode: Decode) -> None:
        while True:
            session = self._work.get()
            decode(session)
            del self._lanes[session.lane]
            session.leave()


def main() -> NoReturn:
    """Arguments: descriptor of the socket, threads, mebibytes, processor seconds; import roots follow."""
    descriptor, at_once, memory_mb, cpu_s = map(int, sys.argv[1:5])
    limits.fall_with_parent()
    limits.limit(memory_mb=memory_mb, cpu_s=cpu_s)
    child = Child(socket.socket(fileno=descriptor), at_once)
    child.start()
    limits.stay_alone()
    child.hello(["limits", "seccomp"] if seccomp.wall_in() else ["limits"])
    try:
        child.serve()
    finally:
        # Threads may be deep inside a decoder; nothing here is worth waiting for.
        os._exit(0)
