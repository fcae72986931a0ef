"""Who may come in: a cap that is set, and a capacity that is measured.

A newcomer is refused at the door while those inside still keep their latency; who was inside before has a reserve.
Readiness does not change: a full server is well.
"""

from __future__ import annotations

from streamsrv.errors import Full
from streamsrv.runtime.scheduling.pace import FULL, Load

RESERVE = 0.1
"""Share of the places kept for resumes on top of them, at least one: who is inside must be able to come back."""
RETRY_AFTER_S = 5.0
"""Told to those refused."""
UNMEASURED = 32
"""Sessions taken before anything is known about what they cost; further ones come after the first were heard."""


class Admission:
    """Decides about one session at a time.

    Args:
        max_sessions: connected sessions; resumes get the ``reserve`` of so many more.
    """

    def __init__(self, max_sessions: int) -> None:
        self._max_sessions = max_sessions

    def check(self, *, connected: int, hearing: int, load: Load | None, resumes: bool) -> None:
        """See whether there is room for one more.

        Args:
            connected: sessions served now, by any engine.
            hearing: those of them that the engine in question hears.
            load: what it measured; ``None``: it does not measure.
            resumes: whether the session was inside before.

        Raises:
            Full: there is none; says why, and when to try again.
        """
        if connected >= self._max_sessions + (reserve(self._max_sessions) if resumes else 0):
            raise _full(f"this server serves {self._max_sessions} sessions, the most it may")
        if load is None:
            return
        bears = UNMEASURED if load.sessions is None else max(1.0, load.sessions)
        if hearing + 1 > bears + (max(1.0, bears * RESERVE) if resumes else 0.0):
            known = "bears" if load.sessions is not None else "takes before it has measured what they cost"
            raise _full(f"the engine hears {hearing} sessions, and {known} {int(bears)}")
        extra = 1 + RESERVE if resumes else 1.0
        if load.load > FULL * extra and hearing > 0:
            raise _full(f"those inside speak so much that the engine is loaded to {load.load:.0%}")
        if load.oldest_final_s > load.within_s * extra:
            raise _full(f"a final has waited {load.oldest_final_s:.1f} s for the engine")


def reserve(places: int) -> int:
    """Places kept for resumes on top of so many."""
    return max(1, int(places * RESERVE))


def _full(message: str) -> Full:
    return Full(message, retry_after_s=RETRY_AFTER_S)
