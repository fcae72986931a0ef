"""The server's side of the zygote: starts it, asks it for workers, starts it again when it dies.

When the zygote dies its workers die with it (the kernel sees to that), so none can be left behind; their sessions
replay their segments on workers of the next one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from streamsrv.engines._sphinx import wire
from streamsrv.engines._sphinx.handle import Worker
from streamsrv.errors import EngineBusy, SetupError, StreamsrvError

BUILD_S: Final = 60.0
"""Seconds a zygote may take to build its decoder; then it is killed."""
FORK_S: Final = 10.0
"""Seconds a fork may take; then the zygote is taken for stuck, killed and replaced."""
RETRY_S: Final = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses before a new zygote is started; the last one repeats.  A zygote that forked a worker resets them."""
PATIENCE: Final = 3
"""Failed starts in a row after which waiting for a worker makes no sense until one succeeds."""
INSTALL: Final = "pip install 'streamsrv[sphinx]'"


class Keeper:
    """Owns the zygote process.

    Args:
        on_loss: called after a zygote that was up has died.
        on_return: called when one is up again.
    """

    def __init__(self, *, on_loss: Callable[[], None], on_return: Callable[[], None]) -> None:
        self._on_loss = on_loss
        self._on_return = on_return
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._births: deque[asyncio.Future[Worker]] = deque()
        self._up: asyncio.Future[None] | None = None
        self._revival: asyncio.Task[None] | None = None
        self._failures = 0
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The zygote's process id, while there is one."""
        return None if self._process is None else self._process.pid

    @property
    def healthy(self) -> bool:
        """Whether a zygote is up."""
        return self._control is not None and self._up is not None and self._up.done()

    @property
    def hopeless(self) -> bool:
        """Whether zygotes keep failing."""
        return self._closed or self._failures >= PATIENCE

    async def start(self) -> None:
        """Start a zygote and wait until its decoder is built.

        Raises:
            SetupError: it cannot be built here.
        """
        loop = asyncio.get_running_loop()
        self._up = up = loop.create_future()
        try:
            self._spawn(loop)
            async with asyncio.timeout(BUILD_S):
                await up
        except BaseException as failure:
            up.cancel()
            self._bury()
            if isinstance(failure, OSError | TimeoutError):
                raise SetupError(
                    f"PocketSphinx's process did not start: {type(failure).__name__}",
                    hint="see whether this machine may start processes and has 200 MB of free memory",
                ) from failure
            raise

    async def fork(self) -> Worker:
        """One more worker.

        Raises:
            EngineBusy: there is no zygote at the moment, or it could not fork.
        """
        if not self.healthy or self._control is None:
            raise EngineBusy("the speech engine is starting again", retry_after_s=1.0)
        birth: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        self._births.append(birth)
        try:
            self._control.send(wire.FORK)
            async with asyncio.timeout(FORK_S):
                return await birth
        except (OSError, TimeoutError) as failure:
            self._lost()
            raise EngineBusy("the speech engine could not start a worker", retry_after_s=1.0) from failure

    async def close(self) -> None:
        """End the zygote, and with it every worker.  Safe to call twice."""
        self._closed = True
        if self._revival is not None:
            self._revival.cancel()
            await asyncio.gather(self._revival, return_exceptions=True)
        self._bury()

    # --- inside ----------------------------------------------------------------------------------------------

    def _spawn(self, loop: asyncio.AbstractEventLoop) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            self._process = subprocess.Popen(  # a few ms, at start and after a death only; no thread is made
                [sys.executable, "-m", "streamsrv.engines._sphinx.zygote", str(theirs.fileno()), str(os.getpid())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=_environment(),
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._control = ours
        loop.add_reader(ours.fileno(), self._listen)

    def _listen(self) -> None:
        """News from the zygote, or its end."""
        assert self._control is not None
        try:
            data, fds, _flags, _peer = socket.recv_fds(self._control, wire.DATAGRAM_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if not data:
            self._lost()
            return
        self._take(wire.news.decode(data), fds)

    def _take(self, news: wire.News, fds: list[int]) -> None:
        match news:
            case wire.Ready():
                _settle(self._up, None)
            case wire.Unfit():
                _settle(self._up, _unfit(news))
            case wire.Born():
                self._failures = 0
                self._deliver(Worker(news.pid, socket.socket(fileno=fds[0]), fds[1]))
            case wire.Barren():
                birth = self._next_birth()
                if birth is not None:
                    birth.set_exception(EngineBusy("this machine lets no more workers start", retry_after_s=2.0))

    def _deliver(self, worker: Worker) -> None:
        birth = self._next_birth()
        if birth is None:
            worker.kill()
        else:
            birth.set_result(worker)

    def _next_birth(self) -> asyncio.Future[Worker] | None:
        """Whoever waits for the zygote's answer; ``None`` when they left meanwhile."""
        birth = self._births.popleft() if self._births else None
        return None if birth is None or birth.done() else birth

    def _lost(self) -> None:
        """The zygote is gone, or of no use."""
        was_up = self.healthy
        self._bury()
        if was_up and not self._closed:
            self._on_loss()
            self._revive()

    def _revive(self) -> None:
        if self._revival is None or self._revival.done():
            self._revival = asyncio.get_running_loop().create_task(self._start_again(), name="sphinx.revival")

    async def _start_again(self) -> None:
        while not self._closed:
            await asyncio.sleep(RETRY_S[min(self._failures, len(RETRY_S) - 1)])
            self._failures += 1  # a worker's birth sets it back
            try:
                await self.start()
            except StreamsrvError:
                self._on_loss()
                continue
            self._on_return()
            return

    def _bury(self) -> None:
        """Kill and reap; whoever waits is told."""
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()  # a killed process is gone within a millisecond
            self._process = None
        gone = SetupError("PocketSphinx's process died while it loaded its model")
        _settle(self._up, gone)
        while self._births:
            birth = self._births.popleft()
            if not birth.done():
                birth.set_exception(EngineBusy("the speech engine is starting again", retry_after_s=1.0))


def _settle(future: asyncio.Future[None] | None, failure: StreamsrvError | None) -> None:
    if future is None or future.done():
        return
    if failure is None:
        future.set_result(None)
    else:
        future.set_exception(failure)


def _unfit(news: wire.Unfit) -> SetupError:
    if news.missing:
        return SetupError("the engine 'sphinx' needs the package pocketsphinx", hint=INSTALL)
    return SetupError(f"PocketSphinx cannot load its model: {news.reason}", hint=f"install it anew: {INSTALL}")


def _environment() -> dict[str, str]:
    """Ours, and the place this package was imported from."""
    home = str(Path(__file__).resolve().parents[3])
    paths = [home, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
