"""What a session may do, and how long it waits."""

from __future__ import annotations

import msgspec


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
