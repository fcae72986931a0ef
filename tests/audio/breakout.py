"""What a decoder that was taken over would try.  Runs inside the cage, in a decoder's place; see ``test_decode_cage``.

Arguments: as for ``child.main``, but the second tells whether the child's own walls go up.  The environment's ``CASE``
holds what to reach for.  The names of the deeds that could be done go back over the socket, then a full stop.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import sys
import time
from collections.abc import Callable

CASE = json.loads(os.environ["CASE"])


def fork() -> None:
    for _ in range(3):
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)


def connect() -> None:
    with socket.socket() as sock:
        sock.settimeout(2)
        sock.connect(("127.0.0.1", CASE["port"]))


DEEDS: dict[str, Callable[[], object]] = {
    "secret": lambda: os.open(CASE["secret"], os.O_RDONLY),
    "passwd": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "look": lambda: os.stat(CASE["secret"]),
    "write": lambda: os.open(CASE["secret"] + ".new", os.O_WRONLY | os.O_CREAT),
    "socket": socket.socket,
    "connect": connect,
    "fork": fork,
    "kill": lambda: os.kill(CASE["server"], 0),
    "memory": lambda: bytearray(4 << 30),
    "limits": lambda: resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30)),
}
"""Starting another program comes last: who can do it says nothing any more."""


def main() -> None:
    """Try everything."""
    sys.path += sys.argv[5:]
    from streamsrv.audio._cage import limits, seccomp

    link = socket.socket(fileno=int(sys.argv[1]))
    limits.fall_with_parent()
    limits.limit(memory_mb=int(sys.argv[3]), cpu_s=int(sys.argv[4]))
    walled = sys.argv[2] == "1"
    if walled:
        limits.stay_alone()
        if not seccomp.wall_in():
            link.sendall(b"no filter")
            return
    done = []
    for name, deed in DEEDS.items():
        with contextlib.suppress(Exception):  # Python itself stumbles where it cannot load what it wants
            deed()
            done.append(name)
    if walled:
        with contextlib.suppress(OSError):
            os.execv(sys.executable, [sys.executable, "-c", ""])
    link.sendall(" ".join(done).encode() + b".")


main()
