"""The whole contract of a sink: a place outside to which finals are handed, in order, at least once.

A sink answers in four words, and the difference between the last two and the third is what keeps order and words:

* ``taken``: it is there for sure;
* ``refused``: it is not, and the same again will be refused again: this *record* is at fault;
* ``unknown``: nobody can say whether it is there; a time-out is this, never a refusal, for the record may arrive later;
* ``unavailable``: it is not there, and no fault of the record's: the sink is away, overloaded or not set up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

Verdict: TypeAlias = Literal["taken", "refused", "unknown", "unavailable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One event, ready to be sent."""

    interview: str
    """What must stay in order among itself: Kafka's key."""
    id: str
    """The same whenever this event is sent: what a consumer dedupes by."""
    kind: str
    """Type of the event, such as ``transcript.final``."""
    body: bytes
    """The event as JSON (``sinks.events``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a batch.

    The first ``taken`` records are there for sure.  ``verdict`` is about the record behind them, and about none when
    all were taken; records behind that one may be there or not.
    """

    taken: int
    verdict: Verdict = "taken"
    reason: str = ""
    """Why, in our own words: a status, the name of an error; never what a record or a sink says."""
    retry_after_s: float | None = None
    """When to come back, if the sink said so."""


class Sink(Protocol):
    """One sink.  It connects when it is first used and again when it lost its connection: a sink that is away at the
    start is no obstacle."""

    @property
    def name(self) -> str:
        """Its name in settings, metrics and the store; of a closed list."""

    async def send(self, batch: Sequence[Record]) -> Outcome:
        """Send records of one interview, in order; may run for several interviews at once.

        Comes back within a deadline of the sink's own.  Whatever goes wrong is in the outcome; it raises nothing but
        what is a mistake of ours.
        """

    async def close(self) -> None:
        """Let go, within a second, whatever state the other side is in.  Safe to call twice."""


def taken(batch: Sequence[Record]) -> Outcome:
    """All of it is there."""
    return Outcome(taken=len(batch))


def failed(verdict: Verdict, reason: str, *, taken: int = 0, retry_after_s: float | None = None) -> Outcome:
    """Something is not there, or nobody knows."""
    return Outcome(taken=taken, verdict=verdict, reason=reason, retry_after_s=retry_after_s)
