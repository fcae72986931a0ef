"""How many messages a connection may send: a flood of tiny ones can eat a core, fast audio cannot."""

from __future__ import annotations

FREE_BYTES = 160
"""A binary message this long or longer costs nothing: the ring's back-pressure slows fast audio down.  160 bytes are
the 20 ms of telephone audio, the smallest packets real clients send."""


class Budget:
    """A token bucket that holds one second's messages.

    Args:
        per_s: small messages a second.
        now: monotonic seconds.
    """

    __slots__ = ("_left", "_per_s", "_then")

    def __init__(self, per_s: int, now: float) -> None:
        self._per_s = per_s
        self._left = float(per_s)
        self._then = now

    def spend(self, now: float) -> bool:
        """Pay for one message; false when the budget is spent."""
        self._left = min(self._per_s, self._left + (now - self._then) * self._per_s) - 1.0
        self._then = now
        return self._left >= 0.0
