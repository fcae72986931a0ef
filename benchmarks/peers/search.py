"""The largest number of speakers held within each limit, by doubling and halving: pure."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.peers.judging import Window

LOST_MORE = 0.05
"""Share of words that may be lost on top of what the same server loses with one speaker: that is its nature, and told,
but not what this race is about."""
FINE = 10
"""The search ends when the next number to try would differ by less than one part in so many."""


class Search:
    """Asks for windows until the largest numbers are known.

    Args:
        limits: seconds for the 95th percentile of word to commit.
        first: number of speakers to begin with; one comes before all others.
        most: windows at most.
        largest: numbers never tried above.
    """

    def __init__(self, limits: Sequence[float], *, first: int = 1, most: int = 12, largest: int = 256) -> None:
        self.windows: list[Window] = []
        self.focus: float | None = None
        """The limit that is searched first and finest; the loosest when unset."""
        self._limits = sorted(limits)
        self._first, self._most, self._largest = first, most, largest

    # --- what is known ----------------------------------------------------------------------------------------------

    def held(self, limit: float) -> int:
        """Most speakers with whom every window stayed within a limit; 0: none."""
        return max((n for n in self._tried() if self._holds(n, limit)), default=0)

    def more_than(self, limit: float) -> bool:
        """Whether it may hold more than is known: windows ended before one failed."""
        return self.held(limit) == max(self._tried(), default=0)

    @property
    def first_limit(self) -> float | None:
        """The tightest limit that holds with one speaker."""
        return next((limit for limit in self._limits if self._holds(1, limit)), None)

    def _tried(self) -> list[int]:
        return sorted({window.sessions for window in self.windows})

    def _holds(self, sessions: int, limit: float) -> bool:
        alone = [window.lost_share for window in self.windows if window.sessions == 1]
        lost = max(alone, default=0.0) + LOST_MORE
        seen = [window for window in self.windows if window.sessions == sessions]
        return bool(seen) and all(window.holds(limit) and window.lost_share <= lost for window in seen)

    # --- what to look at next ---------------------------------------------------------------------------------------

    def next(self) -> int | None:
        """The number of speakers to try; ``None``: it is known, or there were windows enough."""
        if len(self.windows) >= self._most:
            return None
        if 1 not in self._tried():
            return 1
        loose_first = sorted(self._limits, key=lambda limit: (limit != self.focus, -limit))
        return next((n for limit in loose_first if (n := self._wanted(limit)) is not None), None)

    def saw(self, window: Window) -> None:
        """Take a window into account."""
        self.windows.append(window)

    def _wanted(self, limit: float) -> int | None:
        if not self._holds(1, limit):
            return None
        held = self.held(limit)
        above = [n for n in self._tried() if n > held]
        if not above:
            return None if held >= self._largest else min(self._largest, max(self._first, 2 * held))
        if above[0] - held <= max(1, held // FINE):
            return None
        return (held + above[0]) // 2
