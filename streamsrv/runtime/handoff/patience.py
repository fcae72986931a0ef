"""How long to wait before the next try: longer each time, never quite as long as others wait."""

from __future__ import annotations

import random

FIRST_S = 0.2
"""Pause after the first failure; each further one doubles it."""
EVEN_S = 1 / 2
"""Share of a pause that is fixed; the rest is chance, so that nodes and interviews do not come back all at once."""
_DOUBLINGS = 30


class Patience:
    """Pauses between tries.

    Args:
        longest_s: no pause is longer.
        chance: numbers from 0 to 1.
    """

    def __init__(self, longest_s: float, *, chance: random.Random) -> None:
        self._longest_s = longest_s
        self._chance = chance

    def pause_s(self, failures: int, *, asked_s: float | None = None) -> float:
        """The pause after so many failures in a row, from 1 on; at least what the other side asked for."""
        full = min(self._longest_s, FIRST_S * 2.0 ** min(failures - 1, _DOUBLINGS))
        return max(asked_s or 0.0, full * (EVEN_S + (1 - EVEN_S) * self._chance.random()))
