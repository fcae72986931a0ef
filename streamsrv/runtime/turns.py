"""Many who come at once come a few at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

A_TURN: Final = 4
"""Steps taken in one turn of the event loop: some milliseconds."""


class Turns:
    """For steps of about a millisecond that hundreds may want to take in the same turn of the event loop.

    ``A_TURN`` of them are taken in one, in the order in which they came, and sockets are served between.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._calling = False

    async def mine(self) -> None:
        """Wait for it; what follows up to the next wait is done in it."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        if not self._calling:
            self._calling = True
            loop.call_soon(self._call)
        await turn

    def _call(self) -> None:
        called = 0
        while self._waiting and called < A_TURN:
            turn = self._waiting.popleft()
            if not turn.done():  # else whoever waited has gone
                turn.set_result(None)
                called += 1
        self._calling = bool(self._waiting)
        if self._calling:
            asyncio.get_running_loop().call_soon(self._call)
