"""The way back from a thread to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


def call_on(loop: asyncio.AbstractEventLoop | None, call: Callable[..., None], *args: object) -> None:
    """Call on this event loop, from a thread; nothing happens where there is none, or it is closed."""
    if loop is not None:
        try:
            loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # closed: nobody is left to be told
            return
