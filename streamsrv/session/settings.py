"""What a session may do, and how long it waits."""

from __future__ import annotations

import msgspec

MOST_WINDOWS = 10
"""Resume windows that a store which is away may add to a stream's own: trouble without end keeps nothing open."""


def window_over(parted_at: float, away_at: float, window_s: float) -> float:
    """When a stream whose speaker is away is ended, monotonic seconds.

    Args:
        parted_at: when it was cut.
        away_at: when the store was last found away: nobody could come back before.
    """
    return min(max(parted_at, away_at), parted_at + MOST_WINDOWS * window_s) + window_s


class MachineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a session may do, and how long it waits."""

    idle_timeout_s: float = 60.0
    resume_window_s: float = 60.0
    max_stream_s: float = 14_400.0
    ack_every_s: float = 0.9
    """Restart points come every 0.96 s of silence, so each finds its ack due: at least one a second."""
    partial_every_s: float = 0.1
    agreement: int = 2
    """Equal hypotheses that make a word stable."""
    partials_always: bool = True
    """Ask for partials even when nobody wants to see them: a live engine is then up to date at the endpoint."""
    final_within_s: float = 1.0
    """Deadline of a final, from the end of its segment."""
    partial_first_s: float = 0.0
    """Audio a segment must hold before its first partial is asked for."""
    trim_after_s: float | None = None
    """Longest span of a partial as a rule: a longer one begins at the start of a stable word, as soon as such a
    beginning is proven (``trimming``); ``None``: always the whole."""
    trim_to_s: float = 0.6
    """Share of ``trim_after_s`` a span has after it was trimmed, so that it need not be trimmed each time."""
    trim_context_s: float = 0.8
    """Stable speech a trimmed span begins with: a recogniser that is given words to begin with must hear them."""
    trim_finals: bool = False
    """Whether finals too begin where the partials did; otherwise they hear the whole segment."""
    concluded_after_s: float | None = None
    """Silence after the last word that a partial must have heard to be the segment's final; it is asked for as soon as
    there is so much, whether the peer wants partials or not.  ``None``: finals are always asked for."""
