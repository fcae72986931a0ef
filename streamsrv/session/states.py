"""The states of a session and every move between them, as one table.

Rules of this file: whatever changes a session's state stands in ``MOVES``; a trigger that has no row in a state is
ignored there.  The diagram in ``docs/architecture.md`` is drawn from the same table by ``diagram()``.
"""

from __future__ import annotations

import enum


class State(enum.Enum):
    """Where a session is."""

    OPEN = "open"
    """Greeted; no audio yet, options may change."""
    LIVE = "live"
    """Audio flows."""
    PARTED = "parted"
    """The connection is cut; the stream waits for a resume."""
    ENDING = "ending"
    """No more audio; the tail is decoded and stored."""
    LEAVING = "leaving"
    """The server goes away; what was said so far is finalised, the stream stays resumable."""
    ENDED = "ended"
    """Everything is stored and the stream is over."""
    GONE = "gone"
    """Not ours any more: a newer connection or another server has it."""


class Trigger(enum.Enum):
    """What moves a session."""

    AUDIO = "audio"
    FINISH = "finish, clean close"
    CUT = "cut, resumable error"
    FATAL = "lasting error"
    WINDOW_OVER = "resume window over"
    DRAIN = "drain"
    SETTLED = "all finals stored"
    SUPERSEDED = "superseded"


MOVES: dict[tuple[State, Trigger], State] = {
    (State.OPEN, Trigger.AUDIO): State.LIVE,
    (State.OPEN, Trigger.FINISH): State.ENDING,
    (State.OPEN, Trigger.CUT): State.PARTED,
    (State.OPEN, Trigger.FATAL): State.ENDING,
    (State.OPEN, Trigger.DRAIN): State.LEAVING,
    (State.OPEN, Trigger.SUPERSEDED): State.GONE,
    (State.LIVE, Trigger.FINISH): State.ENDING,
    (State.LIVE, Trigger.CUT): State.PARTED,
    (State.LIVE, Trigger.FATAL): State.ENDING,
    (State.LIVE, Trigger.DRAIN): State.LEAVING,
    (State.LIVE, Trigger.SUPERSEDED): State.GONE,
    (State.PARTED, Trigger.WINDOW_OVER): State.ENDING,
    (State.PARTED, Trigger.FATAL): State.ENDING,
    (State.PARTED, Trigger.DRAIN): State.GONE,
    (State.PARTED, Trigger.SUPERSEDED): State.GONE,
    (State.ENDING, Trigger.SETTLED): State.ENDED,
    (State.ENDING, Trigger.SUPERSEDED): State.GONE,
    (State.LEAVING, Trigger.SETTLED): State.GONE,
    (State.LEAVING, Trigger.FINISH): State.ENDING,
    (State.LEAVING, Trigger.SUPERSEDED): State.GONE,
}


TAKES_AUDIO = frozenset({State.OPEN, State.LIVE})
OVER = frozenset({State.ENDED, State.GONE})


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> open"]
    lines += [f"    {old.value} --> {new.value}: {trigger.value}" for (old, trigger), new in MOVES.items()]
    lines += [f"    {state.value} --> [*]" for state in State if state in OVER]
    return "\n".join(lines)
