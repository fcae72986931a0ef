"""A server process of a run: the real ``streamsrv serve``, which can be killed, stopped, frozen and its disk filled."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import aiohttp

from tests.adversity.runs import nursery, served, strict
from tests.adversity.runs.balancer import is_ready
from tests.adversity.runs.ledger import Died
from tests.adversity.runs.lines import HOST
from tests.adversity.runs.nursery import Child
from tests.adversity.runs.processes import Kin, catches

READY_WITHIN_S = 30.0
ENDS_WITHIN_S = 20.0
LEAVES_WITHIN_S = 5.0
"""A decoder whose server died has gone by then: it has two seconds."""
LOOKS_EVERY_S = 0.05
DISK_MB = 80
"""Room of a node's disk: a run writes a hundredth of it, but uploads leave 64 MB of it free."""
DISKS = {"disk_full": "data", "log_full": "log", "tmp_full": "tmp"}
"""Which folder of a node lies on a small disk of its own when that is to be filled."""
FILLER = "filler"
SMALL_DISK_S = 5.0
"""Mounting takes no longer."""
PORTS = (20_000, 32_000)
HARMLESS: dict[str, str | None] = {"Unclosed AIOKafkaConnection": None, "Unhandled exception": "InvalidStateError"}
"""Complaints of libraries that mean nothing, and their errors if only some do: aiokafka forgets a connection that is
given up while it is made, and closes it when it is collected; aiohttp, when a request ends in the very moment in which
its server gives it up at the end, wakes somebody who waits no longer."""


def _ports() -> Iterator[int]:
    """Ports that nobody has, none twice.

    They lie below those the system gives to connections going out: a process that is started again finds its own free.
    """
    first = random.randrange(*PORTS)
    for port in itertools.cycle([*range(first, PORTS[1]), *range(PORTS[0], first)]):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        yield port


_free = _ports()


def free_port() -> int:
    """A port of one's own."""
    return next(_free)


class Node:
    """One node of a run, over all its lives.

    Args:
        folder: holds its data, its log and its disk.
        settings: ``STREAMSRV_*`` of all its lives.
        clock: seconds since the run began.
        died: told each time it ends.
        disks: which of its folders lie on small disks of their own, which can be filled: ``data``, ``log``, ``tmp``.
        strict: it may write nowhere but to its data, and is not root.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        settings: Mapping[str, str],
        *,
        clock: Callable[[], float],
        died: Callable[[Died], None],
        disks: Collection[str] = (),
        strict: bool = False,
    ) -> None:
        self.name = name
        self.port = free_port()
        self.data = folder / "data"
        self._tmp = folder / "tmp"
        self.log = folder / "log" / f"{name.replace(' ', '-')}.log"
        self._beside = folder / name.replace(" ", "-")
        self.lives = 0
        self._settings = settings
        self._clock = clock
        self._died = died
        self._disks = {name: folder / name for name in disks}
        self._strict = strict
        self._process: Child | None = None
        self._watching: asyncio.Task[None] | None = None
        self._wanted = False
        self._kin = Kin()

    async def prepare(self) -> None:
        """Make its folders, on disks of their own where it wants them."""
        for folder in (self.data, self._tmp, self.log.parent):
            folder.mkdir(parents=True)
        for folder in self._disks.values():
            options = f"size={DISK_MB}m,mode=0700"
            await _command("mount", "-t", "tmpfs", "-o", options, "streamsrv-run", str(folder))

    async def clear(self) -> None:
        """Take its disks away; its log stays."""
        if "log" in self._disks:
            shutil.copy(self.log, self.log.parent.parent)
        for folder in self._disks.values():
            await _command("umount", "--lazy", str(folder))

    # --- its life -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start it and wait until it takes speakers."""
        self._wanted = False
        if "log" in self._disks and self.log.exists():
            _trim(self.log)
        self._process = process = await self._launch(self.log)
        self.lives += 1
        self._kin.begin(process.pid)
        self._watching = asyncio.create_task(self._watch(process))
        async with asyncio.timeout(READY_WITHIN_S):
            while not await is_ready(self.port):
                if process.returncode is not None:
                    raise AssertionError(f"{self.name} did not start: {self.tail()}")
                await asyncio.sleep(LOOKS_EVERY_S)

    async def _launch(self, log: Path) -> Child:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("STREAMSRV_")}
        environ |= {
            "STREAMSRV_SERVER_PORT": str(self.port),
            "STREAMSRV_STORE_DATA_DIR": str(self.data),
            "STREAMSRV_SERVER_LOG_FORMAT": "json",
            "TMPDIR": str(self._tmp),
            **self._settings,
        }
        if self._strict:
            strict.own(self.data)
            environ[strict.PLACE] = str(self.data)
        return await nursery.current().fork([str(self._beside), "serve"], environ, log)

    async def refuses(self) -> tuple[int, str]:
        """Start it when it must not come up; the exit code, and what it said.

        Raises:
            TimeoutError: it did come up, or hangs; it is killed.
        """
        said = self._beside.with_suffix(".refused")
        process = await self._launch(said)
        self._kin.begin(process.pid)
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
        return code, said.read_text("utf-8", "replace")

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def kill(self) -> None:
        """SIGKILL, wherever it is."""
        await self._end(signal.SIGKILL)

    async def term(self) -> None:
        """SIGTERM, and wait until it has gone."""
        await self._end(signal.SIGTERM)

    def tell_stacks(self) -> None:
        """Let it write where it is; a frozen one does when it is thawed, and one that just begins does not."""
        if self._process is not None and self.alive and catches(self._process.pid, served.TELL):
            self._send(served.TELL)

    def jump(self, seconds: int) -> None:
        """Let its wall clock go wrong by so much; 0: right again.  A next life begins with a right one."""
        self._beside.with_suffix(".offset").write_text(str(seconds), "ascii")
        if self._process is not None and self.alive and catches(self._process.pid, served.JUMP):
            self._send(served.JUMP)

    def freeze(self) -> None:
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)

    async def _end(self, number: signal.Signals) -> None:
        if not self.alive or self._watching is None:
            return
        self._wanted = True
        if self._process is not None:
            self._kin.note(self._process.pid)
        self._send(number)
        async with asyncio.timeout(ENDS_WITHIN_S):
            await asyncio.shield(self._watching)

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def _watch(self, process: Child) -> None:
        code = await process.wait()
        self._died(Died(at=self._clock(), name=self.name, code=code, wanted=self._wanted))

    @property
    def database(self) -> list[Path]:
        """The files of its SQLite database."""
        return sorted(self.data.glob("streamsrv.db*"))

    def wipe(self) -> None:
        """Take its data away."""
        for path in self.data.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    # --- its disk -----------------------------------------------------------------------------------------------

    async def fill(self, disk: str) -> None:
        """Leave no byte of this disk free."""
        await asyncio.to_thread(_fill, self._disks[disk] / FILLER)

    def empty(self, disk: str) -> int:
        """Make room again; the bytes that were free before."""
        room = os.statvfs(self._disks[disk])
        (self._disks[disk] / FILLER).unlink(missing_ok=True)
        return room.f_bavail * room.f_frsize

    # --- what is known of it ------------------------------------------------------------------------------------

    def complaints(self, expected: Collection[str]) -> list[str]:
        """Lines of its log that are errors, except those of these events, or no log lines at all."""
        found = []
        for line in self.log.read_text("utf-8", "replace").splitlines():
            try:
                told = json.loads(line)
            except ValueError:
                found.append(f"{self.name}: {line[:300]}")
                continue
            harmless = HARMLESS.get(told.get("template", ""), "")
            known = told["event"] in expected or harmless is None or harmless == told.get("error")
            if told["level"] == "error" and not known:
                found.append(f"{self.name}: {line[:600]}")
        return found

    def tail(self) -> str:
        return self.log.read_text("utf-8", "replace")[-2_000:]

    async def jobs(self) -> float:
        """Files that wait or are heard.  One that is being received is none yet: the server gives a line that fell
        silent half a minute."""
        return await self.metric("streamsrv_jobs", but='{state="receiving"}')

    async def metric(self, name: str, *, but: str = "") -> float:
        """The sum of a number over its labels, but for one."""
        url = f"http://{HOST}:{self.port}/metrics"
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            lines = (await answer.text()).splitlines()
        values = [line.rsplit(" ", 1) for line in lines if line.split("{")[0].split(" ")[0] == name]
        return sum(float(value) for what, value in values if not but or what != name + but)

    async def orphans(self) -> list[int]:
        """Processes of its earlier lives that still run, after the time a decoder has to see that nobody is there."""
        for _ in range(round(LEAVES_WITHIN_S / LOOKS_EVERY_S)):
            if not (left := self._kin.left(self._process.pid if self._process is not None and self.alive else None)):
                break
            await asyncio.sleep(LOOKS_EVERY_S)
        return left


def _trim(log: Path) -> None:
    """Without the line that a process was killed in, whose rest had to wait for room on the disk."""
    written = log.read_bytes()
    os.truncate(log, written.rfind(b"\n") + 1)


def _fill(path: Path) -> None:
    room = os.statvfs(path.parent)
    if room.f_blocks * room.f_frsize > 2 * DISK_MB << 20:  # its own disk is gone already: never that of the machine
        raise RuntimeError(f"{path.parent} is on no small disk")
    with path.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as failure:
                if failure.errno != errno.ENOSPC:
                    raise


async def _command(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE)
    _, said = await asyncio.wait_for(process.communicate(), SMALL_DISK_S)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)}: {said.decode('utf-8', 'replace').strip()}")
