"""Events that wait for the reader."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from streamsrv.client.messages import Ack, AnyMessage, Partial

MOST_EVENTS = 10_000
"""Hours of speech.  When it is full nothing is read from the server until the reader takes some."""


class Inbox:
    """A bounded queue in which only the newest partial of a channel, and the newest ack, stand.

    Older ones of those are obsolete; every other event is kept.  One writer, one reader.
    """

    def __init__(self, most: int = MOST_EVENTS) -> None:
        self._most = most
        self._events: OrderedDict[object, AnyMessage] = OrderedDict()
        self._count = 0
        self._changed = asyncio.Event()
        self._open = True
        self._error: Exception | None = None

    def __len__(self) -> int:
        return len(self._events)

    async def put(self, event: AnyMessage) -> None:
        """Add an event, once there is room."""
        key = self._key(event)
        self._events.pop(key, None)
        while len(self._events) >= self._most:
            await self._change()
        self._events[key] = event
        self._changed.set()

    async def get(self) -> AnyMessage | None:
        """The oldest event; ``None`` when the stream has ended and all were taken.

        Raises:
            Exception: what ``end`` was told, after the last event.
        """
        while not self._events and self._open:
            await self._change()
        if self._events:
            _, event = self._events.popitem(last=False)
            self._changed.set()
            return event
        if self._error is not None:
            raise self._error
        return None

    def end(self, error: Exception | None) -> None:
        """Nothing more comes; with ``error`` the reader is told after the last event."""
        self._open, self._error = False, error
        self._changed.set()

    def _key(self, event: AnyMessage) -> object:
        if isinstance(event, Partial):
            return ("partial", event.channel)
        if isinstance(event, Ack) and not event.flushed:
            return "ack"
        self._count += 1
        return self._count

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
