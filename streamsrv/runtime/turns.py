"""Many who come at once come one after the other."""

from __future__ import annotations

import asyncio


class Turns:
    """For steps of about a millisecond that hundreds may want to take in the same turn of the event loop.

    Each gets a turn of its own, and sockets are served between them.
    """

    def __init__(self) -> None:
        self._one = asyncio.Lock()

    async def mine(self) -> None:
        """Wait for it; what follows up to the next wait is done in it."""
        async with self._one:
            await asyncio.sleep(0)
