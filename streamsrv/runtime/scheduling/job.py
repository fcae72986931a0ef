"""One question on its way through a window engine."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

import msgspec

from streamsrv.engines.base import WINDOWS_S, Hypothesis, Window
from streamsrv.facts import RATE_HZ, Position
from streamsrv.runtime.ear import Trouble


class Rank(enum.IntEnum):
    """Whose turn it is: the lower goes first, whatever the deadlines."""

    FINAL = 0
    PARTIAL = 1
    BACKGROUND = 2
    """Finals of files: they take what live speech leaves."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What a thread does for one job: give audio to the attention, then hear the window."""

    window: Window
    samples: bytes
    """int16, 16 000 Hz, what the attention lacks."""
    position: Position
    """Of the first sample."""


class Patron(Protocol):
    """A session as the scheduler knows it; called on the event loop."""

    @property
    def background(self) -> bool:
        """Whether it is a file, heard behind live speech."""

    def told(self, trouble: Trouble, active: bool) -> None:
        """Something is wrong, or right again."""

    def ready(self, job: Job) -> Task | None:
        """The engine has time: what to hear now, or ``None`` when it is no longer wanted."""

    def heard(self, job: Job, heard: Hypothesis | None) -> None:
        """The answer; ``None``: the engine gave it up."""


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """One question that waits, or is being heard.

    Attributes:
        lane: jobs of one lane are never in two threads at once.
        size_s: window it is padded to, from ``size_of``.
        asked_at: when it was put, monotonic seconds.
        deadline: when its answer is wanted.
        alone: shares no batch; it may have broken one.
        tries: batches it was in that broke.
        busy: times the engine was too busy for it.
        not_before: waits until then, for an engine that was busy.
    """

    patron: Patron
    lane: object
    rank: Rank
    size_s: float
    asked_at: float
    deadline: float
    segment: int = 0
    """For the log."""
    alone: bool = False
    tries: int = 0
    busy: int = 0
    not_before: float = 0.0


def size_of(span: Position, floor_s: float) -> float:
    """Seconds of the window a span is padded to."""
    wanted = max(span / RATE_HZ, floor_s)
    return float(next((size for size in WINDOWS_S if size >= wanted), WINDOWS_S[-1]))
