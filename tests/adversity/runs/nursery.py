"""Servers that begin quickly: forked from a process that has imported everything, which is most of a start.

A run starts up to eight, four runs at a time on two cores.  What is forked is what ``python -m`` would run: a process
with a session, an environment and a log of its own.  It does not outlive the nursery, nor that the run.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from tests.adversity.runs import served
from tests.adversity.runs.processes import die_with_the_parent

ROOT = Path(__file__).parents[3]
MOST_BYTES = 65_536
IMPORTED = ("streamsrv.cli", "streamsrv.server.main", "streamsrv.runtime.neighbours", "faster_whisper")
IF_THERE = ("pymongo", "redis.asyncio", "aiokafka", "streamsrv.stores.mongo.store", "streamsrv.shared_state.redis")
"""What only pairs need."""
_current: contextvars.ContextVar[Nursery] = contextvars.ContextVar("nursery")


class Child:
    """A forked server, as ``asyncio.subprocess.Process`` shows one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()

    async def wait(self) -> int:
        await self._ended.wait()
        return self.returncode or 0

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def ended(self, code: int) -> None:
        self.returncode = code
        self._ended.set()


class Nursery:
    """``async with`` starts one; ``fork`` within it begins servers.

    Attributes:
        starting: held by the run that starts: two starts at once take the cores from the runs beside them.
    """

    def __init__(self) -> None:
        self.starting = asyncio.Lock()
        self._children: dict[int, Child] = {}
        self._awaited: deque[asyncio.Future[Child]] = deque()

    async def __aenter__(self) -> Self:
        self._channel, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.setblocking(False)
        with far:
            words = [sys.executable, "-m", "tests.adversity.runs.nursery", str(far.fileno())]
            environ = {name: value for name, value in os.environ.items() if not name.startswith("STREAMSRV_")}
            self._process = await asyncio.create_subprocess_exec(
                *words, cwd=ROOT, env=environ, pass_fds=[far.fileno()], start_new_session=True
            )
        self._listening = asyncio.create_task(self._listen())
        self._token = _current.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        self._channel.close()
        await self._process.wait()
        _current.reset(self._token)

    async def fork(self, words: Sequence[str], environ: Mapping[str, str], log: Path) -> Child:
        """Begin a server that runs these words of ``served``, with its output appended to a log."""
        awaited: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._awaited.append(awaited)
        order = json.dumps({"words": list(words), "environ": dict(environ), "log": str(log)})
        await asyncio.get_running_loop().sock_sendall(self._channel, order.encode())
        return await awaited

    async def _listen(self) -> None:
        while said := await asyncio.get_running_loop().sock_recv(self._channel, MOST_BYTES):
            told = json.loads(said)
            if "code" in told:
                self._children.pop(told["pid"]).ended(told["code"])
            else:
                self._children[told["pid"]] = child = Child(told["pid"])
                self._awaited.popleft().set_result(child)


def current() -> Nursery:
    """The one around us."""
    return _current.get()


# --- in its process -----------------------------------------------------------------------------------------------


def _import() -> None:
    served.bend_clock()  # before anybody takes the clock's functions by name
    for name in IMPORTED:
        importlib.import_module(name)
    for name in IF_THERE:
        try:
            importlib.import_module(name)
        except ImportError:
            pass


def _attend(channel: socket.socket) -> list[str]:
    """Fork for each order and tell of each end; in a child: the words it is to run."""
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake)
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if woken in ready:
                os.read(woken, MOST_BYTES)
                _tell_ends(channel)
            if channel in ready:
                order = channel.recv(MOST_BYTES)
                if not order:
                    return []
                if (pid := os.fork()) == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    return _become(json.loads(order))
                channel.send(json.dumps({"pid": pid}).encode())


def _tell_ends(channel: socket.socket) -> None:
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            channel.send(json.dumps({"pid": ended[0], "code": os.waitstatus_to_exitcode(ended[1])}).encode())
    except ChildProcessError:
        pass


def _become(order: dict[str, Any]) -> list[str]:
    die_with_the_parent()  # whoever kills the run kills its nodes
    os.setsid()
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    os.environ.clear()
    os.environ.update(order["environ"])
    return list(order["words"])


def _main(number: str) -> int:
    die_with_the_parent()
    with socket.socket(fileno=int(number)) as channel:
        _import()
        # What is there is shared with all servers, as long as no collector walks through it: a core's 0.2 s each time.
        gc.collect()
        gc.freeze()
        words = _attend(channel)
    if words:
        _end(served.main(*words))
    return 0


def _end(code: int) -> NoReturn:
    """As a process ends, but that the libraries are not taken apart, which costs as much again as a start."""
    threading._shutdown()  # type: ignore[attr-defined]  # one that does not end holds its process, as it should
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
