"""What waits to be sent: bounded, partials give way first, and nobody who speaks ever waits for it."""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from streamsrv import events
from streamsrv.events import ViewerEvent
from streamsrv.shared_state._redis.link import Command

MAX_EVENTS: Final = 2_048
"""Events that may wait.  When it is full, partials are dropped, then what is newest: a gap others can see."""
MAX_COMMANDS: Final = 4_096
"""Commands that may wait; the newest are dropped: all of them are repeated, or run out by themselves."""


class Event(msgspec.Struct):
    """Something to be told; changed in place when a newer partial of the same segment comes."""

    interview: str
    count: int
    stream: str
    event: ViewerEvent | None

    def replaces(self, other: Event) -> bool:
        """Whether both are partials of the same segment."""
        one, two = self.event, other.event
        return (
            isinstance(one, events.Partial)
            and isinstance(two, events.Partial)
            and (self.stream, one.channel, one.segment) == (other.stream, two.channel, two.segment)
        )


class Waiting:
    """A queue of events and one of commands, which go first."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._commands: deque[Command] = deque()

    def __len__(self) -> int:
        return len(self._events) + len(self._commands)

    def order(self, command: Command) -> int:
        """Take a command; how many were dropped for want of room."""
        if len(self._commands) >= MAX_COMMANDS:
            return 1
        self._commands.append(command)
        return 0

    def put(self, event: Event) -> int:
        """Take an event; how many were dropped for want of room."""
        if isinstance(event.event, events.Partial):
            for waiting in reversed(self._events):
                if waiting.replaces(event):
                    waiting.event = event.event
                    return 0
        dropped = 0
        if len(self._events) >= MAX_EVENTS:
            kept = deque(one for one in self._events if not isinstance(one.event, events.Partial))
            dropped = len(self._events) - len(kept)
            self._events = kept
        if len(self._events) >= MAX_EVENTS:
            return dropped + 1
        self._events.append(event)
        return dropped

    def take(self, most: int) -> tuple[list[Command], list[Event]]:
        """What goes next."""
        commands = [self._commands.popleft() for _ in range(min(most, len(self._commands)))]
        left = most - len(commands)
        return commands, [self._events.popleft() for _ in range(min(left, len(self._events)))]

    def clear(self) -> int:
        """Drop everything; how much that was."""
        dropped = len(self)
        self._events.clear()
        self._commands.clear()
        return dropped
