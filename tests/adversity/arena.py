"""The running server of an attack, somebody innocent beside it, and what must be true afterwards."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp

from streamsrv import telemetry
from streamsrv.engines.base import LiveEngine
from streamsrv.runtime.settings import SessionSettings, SpoolSettings, UploadSettings
from streamsrv.settings import ServerSettings
from streamsrv.stores.base import TranscriptStore
from streamsrv.stores.sqlite.schema import DATABASE_NAME
from tests.support.raw import WITHIN_S, Answer, Json, Raw, handshake
from tests.support.server import Running, running
from tests.support.speech import silence, voice

HEALTH_WITHIN_S = 1.0
"""The one time that is asserted: a server under attack still answers its load balancer."""
MOST_GROWTH = 64 * 2**20
"""Resident bytes one attack may leave behind."""
UTTERANCE = voice(1.2) + silence(0.8)
"""One final of two or three words."""
BRIEF = SessionSettings(resume_window_s=0.1)
"""A cut stream is ended at once, so that nothing is left when an attack is over."""

Open: TypeAlias = Callable[..., AbstractAsyncContextManager["Arena"]]


async def eventually(true: Callable[[], bool], what: Callable[[], object]) -> None:
    """Wait for the event loop to get there; ``what`` explains when it does not."""
    try:
        async with asyncio.timeout(WITHIN_S):
            while not true():  # noqa: ASYNC110 -- looks at what tells nobody when it changes
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(what()) from None


class Talker:
    """A well-behaved client."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.seen: list[Json] = []

    async def next(self) -> Json | None:
        """The next event; none when the server has closed."""
        message = await self.ws.receive(WITHIN_S)
        if message.type is not aiohttp.WSMsgType.TEXT:
            return None
        event: Json = json.loads(message.data)
        self.seen.append(event)
        return event

    async def until(self, kind: str, **wanted: object) -> Json:
        """Read on to an event of this type that has these values."""
        while (event := await self.next()) is not None:
            if event["type"] == kind and all(event[name] == value for name, value in wanted.items()):
                return event
        raise AssertionError(f"closed with {self.ws.close_code} before {kind} {wanted}: {self.seen[-5:]}")

    async def end(self) -> int | None:
        """Read to the end; the close code."""
        while await self.next() is not None:
            pass
        return self.ws.close_code

    def all(self, kind: str) -> list[Json]:
        return [event for event in self.seen if event["type"] == kind]

    async def send(self, audio: bytes, *, size: int = 3_200) -> None:
        for at in range(0, len(audio), size):
            await self.ws.send_bytes(audio[at : at + size])

    async def tell(self, kind: str, **fields: object) -> None:
        await self.ws.send_str(json.dumps({"type": kind, **fields}))

    async def utter(self) -> Json:
        """Say something; the final."""
        await self.send(UTTERANCE)
        return await self.until("final")

    async def begin_to_speak(self) -> None:
        """Until words are promised; then a pause that may be one between words."""
        for _ in range(8):
            await self.send(voice(0.2))
            await asyncio.sleep(0.12)
        while not (await self.until("partial"))["stable_chars"]:
            pass
        await self.send(silence(0.4))
        await asyncio.sleep(0.2)  # nobody tells that it was heard

    async def finish(self) -> int | None:
        await self.tell("finish")
        return await self.end()


class Arena:
    """A server under attack."""

    def __init__(self, server: Running, http: aiohttp.ClientSession, log: io.StringIO, sink: telemetry.Sink) -> None:
        self.server = server
        self.http = http
        self.port = server.port
        self.expected_errors = 0
        """Lines of level error that an attack is meant to cause."""
        self._peers: list[Raw] = []
        self._log = log
        self._sink = sink
        self._tasks = 0
        self._files = 0
        self._resident = 0

    # --- peers --------------------------------------------------------------------------------------------------

    async def connect(self, *, receive_buffer: int | None = None, source: str | None = None) -> Raw:
        """An attacker before its first word; its connection is closed at the end."""
        peer = await Raw.connect(self.port, receive_buffer=receive_buffer, source=source)
        self._peers.append(peer)
        return peer

    async def raw(self, path: str = "/transcription/stream/raw", **headers: str | None) -> Raw:
        """An attacker that has been let in."""
        return await (await self.connect()).upgrade(path, **headers)

    async def ask(self, request: bytes | str) -> Answer:
        """One HTTP request by hand, on a connection of its own."""
        peer = await self.connect()
        return await peer.ask(request.encode("latin-1") if isinstance(request, str) else request)

    async def knock(
        self, path: str = "/transcription/stream/raw", *, method: str = "GET", **headers: str | None
    ) -> Answer:
        """Try a handshake; headers with ``_`` for ``-``, ``None`` leaves one out."""
        changes = {name.replace("_", "-"): value for name, value in headers.items()}
        peer = await self.connect()
        await peer.send(handshake(path, self.port, changes, method=method))
        return await peer.answer(body=method != "HEAD")

    def hang_up(self) -> None:
        """Close all connections of attackers."""
        for peer in self._peers:
            peer.close()
        self._peers.clear()

    async def get(self, path: str, *, host: str | None = None, headers: str = "", method: str = "GET") -> Answer:
        named = f"127.0.0.1:{self.port}" if host is None else host
        return await self.ask(f"{method} {path} HTTP/1.1\r\nHost: {named}\r\n{headers}\r\n")

    async def join(self, interview: str = "calm", query: str = "", **headers: str) -> Talker:
        """A well-behaved client, greeted."""
        talker = Talker(await self.http.ws_connect(self.server.stream(interview, query), headers=headers))
        await talker.until("ready")
        return talker

    # --- what is known ------------------------------------------------------------------------------------------

    async def finals(self, interview: str = "raw") -> list[str]:
        """Texts stored for good."""
        return [kept.final.text for kept in await self.server.store.finals(interview)]

    async def ended(self, interview: str = "raw") -> None:
        """Wait until every stream of the interview is ended in the store."""
        async with asyncio.timeout(WITHIN_S):
            while any(one.status == "live" for one in await self.server.store.streams(interview)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def log(self) -> list[dict[str, Any]]:
        """Every line so far; each must be one JSON object."""
        return [json.loads(line) for line in self.log_text().splitlines()]

    def log_text(self) -> str:
        while not self._sink._waiting.empty():
            pass
        return self._log.getvalue()

    def refused(self, code: str) -> float:
        """How often the door has refused with this code."""
        return float(self.server.numbers.registry.get_sample_value("streamsrv_refused_total", {"code": code}) or 0.0)

    # --- before and after ---------------------------------------------------------------------------------------

    async def before(self) -> None:
        await self.health()
        self._tasks, self._files = self._counts()
        self._resident = resident()

    async def after(self) -> None:
        """The line above the table: alive, nothing leaked, nobody harmed, nothing unforeseen in the log."""
        await self.health()
        await eventually(lambda: self.server.speakers == 0, lambda: f"{self.server.speakers} speakers left")
        held = self.server.streams._drivers
        await eventually(lambda: not held, lambda: [(one, driver.machine.state) for one, driver in held.items()])
        await eventually(
            lambda: all(now <= then for now, then in zip(self._counts(), (self._tasks, self._files), strict=True)),
            lambda: f"{self._counts()} tasks and files, {(self._tasks, self._files)} before: {asyncio.all_tasks()}",
        )
        assert self.server.numbers.registry.get_sample_value("streamsrv_sessions") == 0.0
        assert self.server.numbers.registry.get_sample_value("streamsrv_degraded") == 0.0
        assert resident() - self._resident < MOST_GROWTH
        errors = [line for line in self.log() if line["level"] == "error"]
        assert len(errors) == self.expected_errors, errors
        assert "Traceback" not in self.log_text()

    async def health(self) -> None:
        async with asyncio.timeout(HEALTH_WITHIN_S), self.http.get(f"{self.server.http}/health") as answer:
            assert answer.status == 200
            await answer.read()

    def _counts(self) -> tuple[int, int]:
        """Tasks, and open files but for those of the database: the store opens a bounded number, when it reads."""
        return len(asyncio.all_tasks()), sum(DATABASE_NAME not in name for name in _open_files())


def _open_files() -> Iterator[str]:
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the listing's own is gone
            yield os.readlink(f"/proc/self/fd/{number}")


def resident() -> int:
    """Bytes this process holds in memory."""
    with open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def arena(
    folder: Path,
    *,
    session: SessionSettings = BRIEF,
    server: ServerSettings | None = None,
    upload: UploadSettings | None = None,
    engine: LiveEngine | None = None,
    store: TranscriptStore | None = None,
    spool: SpoolSettings | None = None,
    bystander: bool = True,
) -> AsyncIterator[Arena]:
    """A server, and somebody who came before the attack and speaks after it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    log = io.StringIO()
    sink = telemetry.configure(level="debug", format="json", stream=log)
    # Every line is looked at, also the ones aiohttp writes; the event loop's own chatter is not about us.
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    try:
        # No pooled connections: what is open is then a session or a leak.
        connector = aiohttp.TCPConnector(force_close=True)
        async with (
            running(
                folder, session=session, server=server, upload=upload, engine=engine, store=store, spool=spool
            ) as live,
            aiohttp.ClientSession(connector=connector) as http,
        ):
            ring = Arena(live, http, log, sink)
            await ring.before()
            calm = await ring.join("bystander") if bystander else None
            try:
                yield ring
            finally:
                ring.hang_up()
            if calm is not None:
                final = await calm.utter()
                assert final["text"].startswith("w0 w1")
                assert await calm.finish() == 1000
            await ring.after()
    finally:
        root.handlers, root.level = handlers, level
