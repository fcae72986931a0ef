"""Whose turn it is: the interviews with something for one sink, those at work, those that rest after a failure."""

from __future__ import annotations

from collections.abc import Iterable

MAX_READY = 10_000
"""Interviews that wait for their turn; the next look into the store finds those that had no room."""
MAX_RESTING = 10_000
"""Interviews that rest after a failure; one more is forgotten and found again, so it rests less than it should."""


class Book:
    """Turns, first come first served.  Times are monotonic seconds."""

    def __init__(self) -> None:
        self._ready: dict[str, None] = {}
        self._busy: set[str] = set()
        self._again: set[str] = set()
        """At work, and there is news of them."""
        self._resting: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        """Of those that rest or come from a rest."""

    @property
    def ready(self) -> int:
        return len(self._ready)

    @property
    def idle(self) -> bool:
        """Nothing is to be done, but for those that rest."""
        return not self._ready and not self._busy

    def heard(self, interview: str) -> None:
        """Something was stored of it."""
        if interview in self._busy:
            self._again.add(interview)
        elif interview not in self._resting and len(self._ready) < MAX_READY:
            self._ready[interview] = None

    def found(self, interviews: Iterable[str]) -> None:
        """The store has something of them; of those at work it says nothing new."""
        for interview in interviews:
            if interview not in self._busy:
                self.heard(interview)

    def found_at_work(self) -> None:
        """Those at work may have something that their turn does not know of."""
        self._again |= self._busy

    def take(self, now: float) -> str | None:
        """The next one, which is at work from now on."""
        self._rouse(now)
        for interview in self._ready:
            del self._ready[interview]
            self._busy.add(interview)
            return interview
        return None

    def wakes_at(self) -> float | None:
        """When the first of those that rest has rested enough."""
        return min(self._resting.values(), default=None)

    def _rouse(self, now: float) -> None:
        for interview in [name for name, until in self._resting.items() if until <= now]:
            del self._resting[interview]
            self.heard(interview)

    def rouse_all(self) -> None:
        """The sink is back: nobody needs to rest on its account."""
        self._failures.clear()
        for interview in tuple(self._resting):
            del self._resting[interview]
            self.heard(interview)

    # --- the end of a turn ----------------------------------------------------------------------------------------

    def done(self, interview: str, *, more: bool) -> None:
        """Its turn is over, without trouble.

        Args:
            more: it has more to hand on, and goes to the back of the queue.
        """
        self.forgive(interview)
        self._leave(interview, more=more)

    def forgive(self, interview: str) -> None:
        """Its failures count no more."""
        self._failures.pop(interview, None)

    def failed(self, interview: str) -> int:
        """Its turn ended in a failure; how many that were in a row."""
        count = self._failures.get(interview, 0) + 1
        if interview in self._failures or len(self._failures) < MAX_RESTING:
            self._failures[interview] = count
        return count

    def rest(self, interview: str, until: float) -> None:
        """Its turn is over, and the next one comes not before ``until``."""
        self._busy.discard(interview)
        self._again.discard(interview)
        if len(self._resting) < MAX_RESTING:
            self._resting[interview] = until

    def _leave(self, interview: str, *, more: bool) -> None:
        self._busy.discard(interview)
        news = interview in self._again
        self._again.discard(interview)
        if more or news:
            self.heard(interview)
