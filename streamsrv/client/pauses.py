"""How long to wait before the next attempt: growing pauses with chance in them, so that many clients do not return at
once."""

from __future__ import annotations

from collections.abc import Callable

FIRST_S = 0.25
MOST_S = 8.0


class Pauses:
    """Pauses that double from 0.25 s to 8 s; each is cut to between a half and the whole of that by chance.

    Args:
        chance: gives a number from 0.0 to 1.0.
    """

    __slots__ = ("_chance", "attempt")

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self.attempt = 0
        """Attempts since the connection last worked."""

    def next_s(self, at_least_s: float = 0.0) -> float:
        """Seconds to wait now; ``at_least_s`` is what the server asked for, and is never undercut."""
        # The exponent is bounded so that a client that tries for days does not compute giant powers.
        whole = min(MOST_S, FIRST_S * 2.0 ** min(self.attempt, 16))
        self.attempt += 1
        return max(at_least_s, whole * (0.5 + 0.5 * self._chance()))

    def reset(self) -> None:
        """The connection works."""
        self.attempt = 0
