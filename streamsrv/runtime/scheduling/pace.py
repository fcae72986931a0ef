"""How often partials are worth asking for, and how many sessions the engine bears.  Pure: time is an argument.

Load is what live speech would cost at the promised pace, as a share of what the engine's threads can do.  While it is
low, partials come more often than promised.  Beyond ``FULL`` the pace stretches so that it fits again: partials give
way before finals are late.  Finals that are late all the same stretch it further.
"""

from __future__ import annotations

import msgspec

from streamsrv.runtime.scheduling.cost import CostBook

FULL = 0.95
"""Load at which partials begin to come less often."""
SPARE = 0.6
"""Load up to which there is time for more partials than promised."""
LEAST_STRETCH = 0.5
"""Partials come at most every ``every_s`` times this: hypotheses of almost the same audio agree on anything."""
MOST_STRETCH = 20.0
"""Partials come at least every ``every_s`` times this."""
EASE_S = 10.0
"""The pace comes back to normal over about so many seconds, and stretches at once."""
LATE_S = 5.0
"""A final that was late is held against the pace for so long."""
SPOKEN_PRIOR = 0.6
"""Share of its time a session speaks, until measured."""
LEAST_SPOKEN = 0.4
"""Share that is always reckoned with: a room that is silent now may speak any moment."""
PRIOR_S = 120.0
"""Seconds of session the prior counts for."""
REMEMBER_S = 300.0
"""Sessions' time after which what was measured counts half, times the number of sessions."""
ACTIVE_PERIODS = 3.0
"""A lane speaks while its last partial was asked within so many periods."""
LEAST_SPEAKING = 0.1
"""Lanes that spoke lately, below which what finals cost cannot be told."""
USUAL = 100
"""Partials over which the length of their windows is averaged."""
MEASURED = 8
"""Batches after which the costs are believed."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine does, measured; for admission, ``/health`` and the metrics."""

    sessions: float | None
    """Live sessions it bears at their measured share of speech and the promised pace; ``None``: not measured yet."""
    load: float
    """Share of its time that live speech takes at the promised pace."""
    stretch: float
    """Partials come so many times less often than promised; below 1 more often."""
    share: float
    """Share of its time a session speaks."""
    oldest_final_s: float
    """Age of the longest waiting final."""
    within_s: float
    """When a final is late."""


class Pace:
    """Measures load and sets the pace.

    Args:
        costs: what batches take.
        every_s: promised seconds between two partials of a lane.
        floor_s: window of a usual partial, until partials were heard.
        budget_s: longest batch of partials.
        parallel: threads of the engine.
    """

    def __init__(self, costs: CostBook, *, every_s: float, floor_s: float, budget_s: float, parallel: int) -> None:
        self.stretch = 1.0
        self._costs = costs
        self._every_s = every_s
        self._usual_s = floor_s
        """Window of a partial, the mean of the last hundred or so."""
        self._budget_s = budget_s
        self._parallel = parallel
        self._active: dict[object, float] = {}  # lanes that speak, and when they last asked; bounded by the lanes
        self._finals: list[float] = []
        self._final_s = 0.0  # thread time of finals per second, smoothed
        self._speaking = 0.0  # lanes that speak, smoothed alike: finals come after their speech
        self._spent_s = 0.0
        self._late_at = -LATE_S
        self._lateness = 0.0
        self._spoken_s = SPOKEN_PRIOR * PRIOR_S
        self._held_s = PRIOR_S
        self._updated: float | None = None

    # --- what is observed ---------------------------------------------------------------------------------------

    def asked(self, lane: object, now: float) -> None:
        """A lane wants a partial: somebody speaks."""
        self._active[lane] = now

    def quiet(self, lane: object) -> None:
        """A lane's segment has ended, or its session."""
        self._active.pop(lane, None)

    def finals(self, seconds: float) -> None:
        """A batch of live finals took so long."""
        self._spent_s += seconds

    def partials(self, size_s: float, count: int) -> None:
        """A batch of live partials was heard: so many windows of this length."""
        self._usual_s += (size_s - self._usual_s) * min(1.0, count / USUAL)

    def final_answered(self, lateness: float, now: float) -> None:
        """A final was answered: ``lateness`` is its wait as a share of what it may wait."""
        if lateness >= 1.0:
            self._late_at = now
            self._lateness = max(lateness, self._lateness)

    # --- what follows -------------------------------------------------------------------------------------------

    def update(self, now: float, sessions: int) -> None:
        """Look at the last seconds; call a few times a second, with the live sessions there are."""
        if self._updated is None:
            self._updated = now
        passed = now - self._updated
        if passed <= 0:
            return
        self._updated = now
        oldest = now - ACTIVE_PERIODS * self.every_s
        self._active = {lane: at for lane, at in self._active.items() if at >= oldest}
        rate = min(1.0, passed / EASE_S)
        self._final_s += (self._spent_s / passed - self._final_s) * rate
        self._speaking += (len(self._active) - self._speaking) * rate
        self._spent_s = 0.0
        fade = 0.5 ** (passed / REMEMBER_S)
        self._held_s = self._held_s * fade + sessions * passed
        self._spoken_s = self._spoken_s * fade + len(self._active) * passed
        if self._held_s < PRIOR_S:  # whatever was measured, the prior counts as much as two minutes of it
            self._spoken_s += SPOKEN_PRIOR * (PRIOR_S - self._held_s)
            self._held_s = PRIOR_S
        self._restretch(now, rate)

    def _restretch(self, now: float, rate: float) -> None:
        wanted = max(self.load / FULL, min(1.0, self.load / SPARE))
        if now - self._late_at < LATE_S:
            wanted *= 1.0 + self._lateness
        else:
            self._lateness = 0.0
        wanted = min(max(wanted, LEAST_STRETCH), MOST_STRETCH)
        self.stretch = wanted if wanted > self.stretch else max(wanted, self.stretch + (wanted - self.stretch) * rate)

    @property
    def every_s(self) -> float:
        """Seconds between two partials of a lane that the engine bears now."""
        return self._every_s * self.stretch

    @property
    def load(self) -> float:
        """Share of the engine's time that live speech takes at the promised pace."""
        return (len(self._active) * self._per_second + self._final_s) / self._parallel

    @property
    def share(self) -> float:
        """Share of its time a session speaks, all its channels together."""
        return max(LEAST_SPOKEN, self._spoken_s / self._held_s)

    @property
    def _per_second(self) -> float:
        """Thread seconds that a second of speech costs in partials."""
        unit = self._costs.unit(final=False, size_s=self._usual_s, within_s=self._budget_s)
        return 0.0 if unit is None else unit / self._every_s

    def sessions(self) -> float | None:
        """Live sessions that can be served at the promised pace, ``None`` until enough was heard."""
        per_second = self._per_second + (self._final_s / self._speaking if self._speaking > LEAST_SPEAKING else 0.0)
        if self._costs.observed < MEASURED or per_second <= 0:
            return None
        return FULL * self._parallel / (per_second * self.share)
