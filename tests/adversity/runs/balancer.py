"""A plain TCP balancer: a new connection goes to the next node that said it is ready, and stays there."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import suppress

from tests.adversity.runs.lines import HOST, Line, to_port

LOOKS_EVERY_S = 0.1
"""Pause between two looks at ``/health/ready``: so long it may send newcomers to a node that is not."""
ANSWER_WITHIN_S = 0.5
WAIT_FOR_NODE_S = 1.0
"""How long a newcomer is kept when no node is ready."""


class Balancer:
    """In front of some nodes.

    Args:
        ports: of the nodes; ``/health/ready`` of each tells whether it takes newcomers.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        self.ready: set[int] = set()
        """Ports of the ways to those that take newcomers."""
        self.line = Line(self._next)
        self.ways = [Line(to_port(port)) for port in ports]
        """A line to each node; looks at its health go that way, too."""
        self._turn = itertools.count()
        self._changed = asyncio.Event()
        self._looking: list[asyncio.Task[None]] = []

    async def start(self) -> Balancer:
        await self.line.start()
        for way in self.ways:
            await way.start()
        self._looking = [asyncio.create_task(self._look(way.port)) for way in self.ways]
        return self

    async def close(self) -> None:
        for task in self._looking:
            task.cancel()
        await asyncio.gather(*self._looking, return_exceptions=True)
        for line in (self.line, *self.ways):
            await line.close()

    async def _next(self) -> int | None:
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_FOR_NODE_S):
                while not self.ready:
                    self._changed.clear()
                    await self._changed.wait()
        ready = sorted(self.ready)
        return ready[next(self._turn) % len(ready)] if ready else None

    async def _look(self, port: int) -> None:
        while True:
            if await is_ready(port):
                self.ready.add(port)
                self._changed.set()
            else:
                self.ready.discard(port)
            await asyncio.sleep(LOOKS_EVERY_S)


async def is_ready(port: int) -> bool:
    """Whether the node on this port takes newcomers."""
    request = f"GET /health/ready HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(request.encode())
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
