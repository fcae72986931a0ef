"""A server process that is told, stopped, killed and started again on its data."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp

from streamsrv.stores.base import StoredFinal, Stream
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore

ROOT = Path(__file__).parents[2]
WITHIN_S = 20.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _as_from_a_terminal() -> None:
    """The server respects signals that are ignored when it starts, as under nohup or in the background of a script."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Served:
    """``tests.support.real_server`` on a folder.

    Args:
        environment: settings and more for its process.
        prefix: what runs it, such as ``prlimit``.
        python: flags of the interpreter.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str] = MappingProxyType({}),
        *,
        prefix: tuple[str, ...] = (),
        python: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.lines: list[dict[str, Any]] = []
        """Its log so far."""
        self.process: asyncio.subprocess.Process
        self.module: tuple[str, ...] = ("tests.support.real_server",)
        """What it runs, and its first flags."""
        self._prefix, self._python = prefix, python
        self._environment = environment
        self._reading: asyncio.Task[None]
        self._news = asyncio.Event()

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def start(self, *, until: str = "server.ready") -> None:
        """Start it, and wait for this line of its log."""
        self.lines.clear()
        flags = ("--port", str(self.port), "--data-dir", str(self.folder), "--log-format", "json")
        self.process = await asyncio.create_subprocess_exec(
            *self._prefix,
            sys.executable,
            *self._python,
            "-m",
            *self.module,
            *flags,
            cwd=ROOT,
            env={**os.environ, **self._environment},
            preexec_fn=_as_from_a_terminal,
            stdout=asyncio.subprocess.PIPE,
        )
        self._reading = asyncio.create_task(self._read())
        if until:
            await self.said(until)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while text := await self.process.stdout.readline():
            self.lines.append(json.loads(text))
            self._news.set()
        self._news.set()

    async def said(self, event: str) -> dict[str, Any]:
        """The line of its log that says this, as soon as it is there."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                for line in self.lines:
                    if line["event"] == event:
                        return line
                if self._reading.done():
                    raise AssertionError(f"it ended without saying {event}: {self.lines[-5:]}")
                self._news.clear()
                await self._news.wait()

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def end(self, within_s: float = WITHIN_S) -> int:
        """Wait for its end; the exit code."""
        async with asyncio.timeout(within_s):
            code = await self.process.wait()
            await self._reading
        return code

    async def kill(self) -> None:
        """SIGKILL, if it still lives."""
        if self.process.returncode is None:
            self.signal(signal.SIGKILL)
        await self.end()

    async def get(self, path: str) -> tuple[int, Any]:
        async with aiohttp.ClientSession() as http, http.get(self.http + path) as answer:
            body = await answer.read()
            return answer.status, json.loads(body) if body[:1] in (b"{", b"[") else body.decode()

    # --- its data -----------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Its database is held by somebody else meanwhile: it can read, and write nothing."""
        other = sqlite3.connect(self.folder / "streamsrv.db", isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            yield
        finally:
            other.close()

    async def finals(self, interview: str) -> tuple[StoredFinal, ...]:
        """What a second opener of the data reads."""
        store = SqliteStore(SqliteSettings(data_dir=str(self.folder)), server=False)
        await store.open()
        try:
            return await store.finals(interview)
        finally:
            await store.close()

    async def streams(self, interview: str) -> tuple[Stream, ...]:
        store = SqliteStore(SqliteSettings(data_dir=str(self.folder)), server=False)
        await store.open()
        try:
            return await store.streams(interview)
        finally:
            await store.close()
