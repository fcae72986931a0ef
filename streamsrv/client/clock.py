"""The clock and the alarm of a client; tests wind their own by hand."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Time(Protocol):
    """Where a client's seconds come from."""

    def now(self) -> float:
        """Monotonic seconds."""

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""


class SystemTime:
    """The real ones."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
