"""The process that builds the decoder once and forks workers from it: ``python -m … FD PARENT_PID``.

Started by exec, single-threaded, so that forking is safe.  It and its workers ignore the terminal's signals (the
server drains while they still work) and die with their parents: by end of file on their socket, and, should they be
stuck, by the kernel.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import socket
import sys
from typing import NoReturn

from streamsrv.engines._sphinx import wire
from streamsrv.engines._sphinx.ear import Ear
from streamsrv.engines._sphinx.worker import serve

PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent is gone."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def main(control_fd: int, parent: int) -> None:
    """Build, tell, fork on request until the server closes its end."""
    die_with(parent)
    for unwanted in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(unwanted, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps workers; the server watches them by pidfd
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold speech
    control = socket.socket(fileno=control_fd)
    ear = build(control)
    if ear is None:
        return
    gc.collect()
    gc.freeze()
    control.send(wire.datagram(wire.Ready()))
    while control.recv(wire.DATAGRAM_BYTES) == wire.FORK:
        fork_worker(ear, control)
    os._exit(0)  # the workers die with us; tidying 100 MB up would only keep them waiting


def build(control: socket.socket) -> Ear | None:
    """The decoder, warmed; ``None`` after telling the server why there is none."""
    try:
        ear = Ear()
        ear.warm()
    except Exception as failure:
        missing = isinstance(failure, ImportError)
        control.send(wire.datagram(wire.Unfit(reason=f"{type(failure).__name__}: {failure}"[:500], missing=missing)))
        return None
    return ear


def fork_worker(ear: Ear, control: socket.socket) -> None:
    """Fork one worker and hand its socket and pidfd to the server."""
    ours, theirs = socket.socketpair()
    zygote = os.getpid()
    try:
        pid = os.fork()
    except OSError as failure:
        control.send(wire.datagram(wire.Barren(errno=failure.errno or 0)))
        ours.close()
        theirs.close()
        return
    if pid == 0:
        control.close()
        theirs.close()
        live(ear, ours, zygote)
    ours.close()
    pidfd = os.pidfd_open(pid)
    socket.send_fds(control, [wire.datagram(wire.Born(pid=pid))], [theirs.fileno(), pidfd])
    os.close(pidfd)
    theirs.close()


def live(ear: Ear, sock: socket.socket, zygote: int) -> NoReturn:
    """A worker, from its first breath; never returns into the zygote's code."""
    try:
        die_with(zygote)
        serve(ear, sock)
    finally:
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
