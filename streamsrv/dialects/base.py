"""The whole contract of a dialect: one protocol's words, to and from the program's commands and events.

Translators only: they hold what the wire needs (counters, units, ids), decide nothing and do no I/O.
"""

from __future__ import annotations

from typing import Protocol

from streamsrv.commands import AnyCommand
from streamsrv.events import AnyEvent


class Dialect(Protocol):
    """One connection's translator."""

    binary_bytes: int
    """Largest binary message."""
    text_bytes: int
    """Largest text message."""

    def hear(self, message: str | bytes, now: float) -> list[AnyCommand]:
        """What the peer's message asks for, in order.

        Raises:
            BadMessage: not this protocol's text.
            BadRequest: an option that is not acceptable.
            MessageTooBig: over the limit of its kind.
        """

    def say(self, event: AnyEvent, now: float) -> list[str | bytes]:
        """The messages that tell the peer; none when its protocol has no word for it."""
