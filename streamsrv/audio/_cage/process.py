"""One decoder process as the server sees it: started, spoken to, watched, ended, reaped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from typing import Final

import msgspec

from streamsrv.audio._cage import reasons, walls, wire
from streamsrv.audio._cage.lane import Lane
from streamsrv.audio._cage.settings import CageSettings
from streamsrv.audio._cage.walls import Walls
from streamsrv.audio._cage.wire import Frame, Parser, Say
from streamsrv.errors import DecoderLost

START_S: Final = 30.0
"""Seconds a process may take until it says hello; then it is killed."""
LEAVE_S: Final = 2.0
"""Seconds it may take to leave once its socket is closed; then it is killed."""


class _Hello(msgspec.Struct, frozen=True):
    walls: list[str]


class Process(asyncio.Protocol):
    """A decoder process with up to ``at_once`` lanes at a time and ``uses`` in its life."""

    def __init__(self, settings: CageSettings, kind: Walls, *, at_once: int, uses: int) -> None:
        self._settings = settings
        self.kind = kind
        self.at_once = at_once
        self.uses = uses
        self.lanes: dict[int, Lane] = {}
        self.walls: tuple[str, ...] = ()
        """What the child says it stands behind."""
        self._parser = Parser()
        self._loop = asyncio.get_running_loop()
        self._hello: asyncio.Future[None] = self._loop.create_future()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        """Done when nothing of the process is left."""
        self._socket: socket.socket | None = None
        self._transport: asyncio.Transport | None = None
        self._popen: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._news = -1
        self._inner = -1
        self._numbers = 0
        self._patience: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int:
        """Of the outermost process: bubblewrap's where it is used."""
        return -1 if self._popen is None else self._popen.pid

    @property
    def opened(self) -> int:
        """Lanes so far."""
        return self._numbers

    @property
    def lost(self) -> bool:
        """Whether it can take no more."""
        return self._transport is None or self._transport.is_closing()

    # --- from birth to hello ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            DecoderLost: it did not come up.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        self._socket = ours
        try:
            with theirs:
                self._spawn(theirs.fileno())
            self._transport, _ = await self._loop.create_unix_connection(lambda: self, sock=ours)
            async with asyncio.timeout(START_S):
                await asyncio.shield(self._hello)
        except (OSError, TimeoutError) as failure:
            self.kill()
            raise DecoderLost("no decoder process could be started", retry_after_s=1.0) from failure
        except BaseException:
            self.kill()
            raise

    def _spawn(self, descriptor: int) -> None:
        settings = self._settings
        self._news, told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        arguments = (self.at_once, settings.memory_mb, settings.cpu_s * self.uses)
        words = walls.command(self.kind, descriptor=descriptor, news=told, arguments=arguments)
        try:
            self._popen = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=dict(walls.ENVIRONMENT),
                cwd="/",
                pass_fds=(descriptor, told) if self.kind == "bubblewrap" else (descriptor,),
                start_new_session=True,
            )
        finally:
            os.close(told)
        self._pidfd = os.pidfd_open(self._popen.pid)
        self._loop.add_reader(self._pidfd, self._reap)

    def _find_inner(self) -> None:
        """Bubblewrap tells which process it holds: killing that one leaves no orphan behind."""
        if self._news < 0:
            return
        try:
            found = re.search(rb'"child-pid":\s*(\d+)', os.read(self._news, 4_096))
        except BlockingIOError:
            return  # it has not told yet
        if found and self._popen is not None and self._popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._inner = os.pidfd_open(int(found[1]))
        os.close(self._news)
        self._news = -1

    # --- lanes -----------------------------------------------------------------------------------------------

    def open(self, descriptor: int | None, on_free: Callable[[], None]) -> Lane:
        """A new lane.

        Args:
            descriptor: an open file to hand over; the caller still closes its own.  ``None``: bytes will be fed.
            on_free: called once, when the decoder has let go of the lane or is gone.

        Raises:
            DecoderLost: the process is gone, or does not listen.
        """
        if self.lost or self._socket is None:
            raise reasons.lost()
        self._numbers += 1
        lane = Lane(self._numbers, self._settings, self._send, on_free)
        frame = wire.pack(Say.OPEN, lane.number, lane.opened(live=descriptor is None))
        if descriptor is None:
            self._send_bytes(frame)
        else:
            # The first bytes this process gets, so there is room for all of them.
            try:
                socket.send_fds(self._socket, [frame], [descriptor])
            except OSError as failure:
                self.kill()
                raise reasons.lost() from failure
        self.lanes[lane.number] = lane
        return lane

    def _send(self, kind: Say, lane: int, body: bytes) -> None:
        self._send_bytes(wire.pack(kind, lane, body))

    def _send_bytes(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def watch(self, now: float, *, fair: bool) -> None:
        """Kill the process when a lane's decoder has owed something for too long.  That lane is to blame, the others
        may try again.  When it would not be ``fair``, the count begins anew."""
        for lane in self.lanes.values():
            if not lane.owed or not fair:
                lane.since = None
            elif lane.since is None:
                lane.since = now
            elif now - lane.since > self._settings.stall_s:
                lane.fail(reasons.complaint("stalled", None, self._settings))
                self.kill()
                return

    # --- what comes back -------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._parser.feed(data):
                self._hear(frame)
        except (ValueError, msgspec.MsgspecError):
            self.kill()  # whoever speaks like this is no decoder of ours any more

    def _hear(self, frame: Frame) -> None:
        if frame.kind is Say.HELLO and not self._hello.done():
            self.walls = tuple(msgspec.json.decode(frame.body, type=_Hello).walls)
            self._find_inner()
            self._hello.set_result(None)
            return
        lane = self.lanes.get(frame.lane)
        if lane is None:
            raise ValueError("a frame of no lane")
        if frame.kind is Say.FREE:
            del self.lanes[frame.lane]
        lane.hear(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forsake()
        if not self.gone.done() and self._patience is None:
            self._patience = self._loop.call_later(LEAVE_S, self._strike, True)

    def _forsake(self) -> None:
        """No lane has a decoder any more."""
        if not self._hello.done():
            self._hello.set_exception(OSError("it left before it said hello"))
            self._hello.exception()  # nobody may be waiting any more
        lanes, self.lanes = self.lanes, {}
        for lane in lanes.values():
            lane.abandon(reasons.lost())

    # --- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let it leave: it ends when its socket does."""
        if self._transport is not None:
            self._transport.abort()

    def kill(self) -> None:
        """End it now."""
        self._strike()
        self._forsake()
        if self._transport is not None:
            self._transport.abort()
        elif self._socket is not None:
            self._socket.close()
        if self._popen is None and not self.gone.done():
            self.gone.set_result(None)
        elif not self.gone.done() and self._patience is None:
            self._patience = self._loop.call_later(LEAVE_S, self._strike, True)

    def _strike(self, blind: bool = False) -> None:
        """Kill what holds the decoder.  Bubblewrap itself is killed only ``blind``, when nothing else is left to do: in
        the middle of its start it would leave a child behind that nobody wakes.  Without that it starts, finds the
        socket closed, and leaves."""
        self._find_inner()
        if self._inner >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._inner, signal.SIGKILL)
        elif self._popen is not None and (blind or self.kind == "plain") and self._popen.poll() is None:
            self._popen.kill()

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        if self._popen is not None:
            self._popen.wait()
        for descriptor in (self._pidfd, self._inner, self._news):
            if descriptor >= 0:
                os.close(descriptor)
        self._pidfd = self._inner = self._news = -1
        if self._patience is not None:
            self._patience.cancel()
        self.close()
        if not self.gone.done():
            self.gone.set_result(None)
