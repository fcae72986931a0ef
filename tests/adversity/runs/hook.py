"""The far end of a webhook: checks signatures, keeps what it takes, and fails on demand."""

from __future__ import annotations

import asyncio
import itertools
import time

import msgspec
from aiohttp import web

from streamsrv.sinks.webhook.signature import HEADER, TOLERANCE_S, verify
from tests.adversity.runs.harms import harm_line
from tests.adversity.runs.lines import HOST, Line, to_port
from tests.adversity.runs.plan import Fault

SINK = "webhook"
SECRET = "a secret of the runs"
MOST_BYTES = 16 * 1_048_576
REDIRECTS = (301, 302, 303, 307, 308)
HANGS_S = 30.0
"""Longer than anybody waits."""
CLOCKS_APART_S = 7_200
"""A node's clock jumps by an hour, and what it signs is still taken."""
MODES = frozenset({"away", "hang", "lose_answers", "redirect"})


class Hook:
    """Takes ``POST /{run}``, by a line of its own.  ``mode`` says what it does:

    ``well``; ``away``: 503, nothing kept; ``hang``: no answer, nothing kept; ``lose_answers``: kept, and the connection
    is broken before the answer; ``redirect``: nothing kept, and somebody who follows is caught.

    Args:
        tolerance_s: how far the clock of who signs may be off.
    """

    def __init__(self, *, tolerance_s: int = TOLERANCE_S) -> None:
        self._tolerance_s = tolerance_s
        self.mode = "well"
        self.kept: dict[str, list[bytes]] = {}
        """Events of each run, as they came."""
        self.forged = 0
        """Requests that were not signed by us."""
        self.followed = 0
        """Requests that went where a redirect led."""
        self._redirects = itertools.cycle(REDIRECTS)
        self._runner: web.AppRunner | None = None
        self._woken = asyncio.Event()
        self._line: Line | None = None

    async def start(self) -> Hook:
        app = web.Application(client_max_size=MOST_BYTES)
        app.router.add_post("/{run}", self._take)
        app.router.add_route("*", "/{run}/elsewhere", self._catch)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        self._line = await Line(to_port(self._runner.addresses[0][1])).start()
        return self

    @property
    def url(self) -> str:
        if self._line is None:
            raise ValueError("the hook was not started")
        return f"http://{HOST}:{self._line.port}"

    def settings(self, run: str) -> dict[str, str]:
        """What nodes are told of it, and that all goes faster than in earnest."""
        return {
            "STREAMSRV_OUTBOX_SINKS": SINK,
            "STREAMSRV_OUTBOX_POLL_S": "0.2",
            "STREAMSRV_OUTBOX_LEASE_S": "3",
            "STREAMSRV_OUTBOX_LONGEST_PAUSE_S": "0.5",
            "STREAMSRV_WEBHOOK_URL": f"{self.url}/{run}",
            "STREAMSRV_WEBHOOK_SECRETS": SECRET,
            "STREAMSRV_WEBHOOK_ALLOW_PRIVATE": "true",
            "STREAMSRV_WEBHOOK_TIMEOUT_S": "1",
        }

    async def close(self) -> None:
        self.heal()
        if self._line is not None:
            await self._line.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def harm(self, fault: Fault) -> None:
        """Do it, and undo it when its time is over."""
        if fault.what not in MODES and self._line is not None:
            return await harm_line(self._line, fault.what, fault.lasts_s)
        self.mode = fault.what
        await asyncio.sleep(fault.lasts_s)
        self.heal()

    def heal(self) -> None:
        self.mode = "well"
        self._woken.set()
        self._woken = asyncio.Event()

    def mend(self) -> None:
        """It does well, and so does its line."""
        self.heal()
        if self._line is not None:
            self._line.mend()

    @property
    def complaints(self) -> list[str]:
        """What should not have come here."""
        told = {"were not signed": self.forged, "followed a redirect": self.followed}
        return [f"{number} requests to the webhook {what}" for what, number in told.items() if number]

    async def _catch(self, request: web.Request) -> web.Response:
        self.followed += 1
        return web.Response()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        mode = self.mode
        if mode == "away":
            return web.Response(status=503)
        if mode == "redirect":
            return web.Response(status=next(self._redirects), headers={"Location": f"{request.path}/elsewhere"})
        if mode == "hang":
            woken = self._woken
            try:
                await asyncio.wait_for(woken.wait(), HANGS_S)
            except TimeoutError:
                pass
            return web.Response(status=503)
        if not verify(
            request.headers.get(HEADER, ""), body, [SECRET], now_s=time.time(), tolerance_s=self._tolerance_s
        ):
            self.forged += 1
            return web.Response(status=401)
        events = msgspec.json.decode(body, type=dict[str, list[msgspec.Raw]])["events"]
        self.kept.setdefault(request.match_info["run"], []).extend(bytes(event) for event in events)
        if mode == "lose_answers" and request.transport is not None:
            request.transport.abort()
        return web.Response()
