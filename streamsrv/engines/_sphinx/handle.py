"""The server's side of one worker: ask with a deadline, see it die, kill it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable

import msgspec

from streamsrv.engines._sphinx import wire
from streamsrv.errors import EngineLost


class Worker:
    """One forked process with one decoder; one question at a time.

    Args:
        pid: its process id, for people; signals go through ``pidfd``, which cannot hit a stranger.
        sock: our end of its socket; owned.
        pidfd: owned.
    """

    def __init__(self, pid: int, sock: socket.socket, pidfd: int) -> None:
        self.pid = pid
        self.alive = True
        self.on_death: Callable[[Worker], None] | None = None
        """Called once, when it has died or was killed."""
        self._sock = sock
        self._pidfd = pidfd
        sock.setblocking(False)
        self._busy = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pidfd, self._gone)

    async def ask(self, ask: wire.Ask, *, within_s: float) -> wire.Told:
        """Its answer.

        Raises:
            EngineLost: it died, broke the protocol or gave no answer within ``within_s``; it is killed.
        """
        self._busy = True
        try:
            async with asyncio.timeout(within_s):
                await self._loop.sock_sendall(self._sock, wire.pack(ask))
                return wire.answers.decode(await self._read())
        except TimeoutError as failure:
            reason = f"a worker gave no answer within {within_s:.1f} s"
            cause: BaseException = failure
        except (EOFError, OSError, ValueError, msgspec.MsgspecError) as failure:
            reason, cause = "a worker died", failure
        except asyncio.CancelledError:
            self.kill()  # its answer would be taken for the next one's
            raise
        finally:
            self._busy = False
            self._close_if_dead()
        self.kill()
        raise EngineLost(reason, hint="replay the segment") from cause

    def kill(self) -> None:
        """End it now; nothing of it is left.  Safe to call twice."""
        if not self.alive:
            return
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._gone()

    def _gone(self) -> None:
        if not self.alive:
            return
        self.alive = False
        self._loop.remove_reader(self._pidfd)
        self._reap()
        os.close(self._pidfd)
        self._close_if_dead()
        if self.on_death is not None:
            self.on_death(self)

    def _reap(self) -> None:
        """Where this process is the machine's first (a container), orphans of a dead zygote are ours to reap."""
        try:
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            pass

    def _close_if_dead(self) -> None:
        """Close the socket, but never under the feet of a call that waits on it."""
        if self.alive:
            return
        if not self._busy:
            self._sock.close()
            return
        try:
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes it
        except OSError:
            pass

    async def _read(self) -> bytes:
        length = wire.body_length(await self._exactly(wire.PREFIX_BYTES))
        return await self._exactly(length)

    async def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = await self._loop.sock_recv(self._sock, count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)
