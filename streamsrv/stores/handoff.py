"""The second half of a store's contract: what waits to be handed to analysis, and who hands it on.

A *sink* is a place that finals are handed to, known to the store by its name alone.  What is stored while ``hand_to``
names sinks is to be handed to each of them: finals, completed interviews, deleted interviews.  The state of a hand-off
belongs to what is handed on, so that it is kept by the same atomic write: a store without transactions keeps it in the
final's own document (per sink: pending, sent or dead, and the attempts), and finds what is pending by an index.

Several nodes may relay from one store.  A *lease* on (sink, interview) keeps two of them from doing the same at once.
Its holder raises the number in it; a rival may take it once it saw, on its own clock, the number stand still for as
long as a lease holds.  It is a hint, never a promise: whoever reads a sink must expect to read a thing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal, Protocol, TypeAlias

import msgspec

from streamsrv.stores.base import StoredFinal, Stream, TranscriptStore

HandoffKind: TypeAlias = Literal["final", "completed", "deleted"]


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """The interview is complete: none of its streams is live."""

    revision: int
    """From 1; one more each time the interview opens again and completes again."""
    started_ms: int | None
    ended_ms: int


class Deletion(msgspec.Struct, frozen=True, kw_only=True):
    """The interview was deleted; this outlives it until it is handed on."""

    streams: tuple[str, ...]
    """Those it had, by order.  The name of the interview may be used again, theirs are not."""
    deleted_ms: int


Outgoing: TypeAlias = StoredFinal | Completion | Deletion


class Handoff(msgspec.Struct, frozen=True, kw_only=True):
    """One thing on its way to one sink."""

    place: int
    """The store's own name of it, which ``handed`` and ``refused`` take; growing within an interview and sink, and
    never used again."""
    stored_ms: int
    attempts: int = 0
    """Times the sink refused it."""
    what: Outgoing
    superseded: bool = False
    """A newer epoch took its place before it was handed on: not for sinks, only to be marked."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What of one interview waits for one sink."""

    streams: tuple[Stream, ...]
    """At least those whose finals are among ``handoffs``."""
    handoffs: tuple[Handoff, ...]
    """Oldest first."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """What a sink will not take: parked until somebody says that it is to be tried again.  Without its words."""

    sink: str
    interview: str
    place: int
    kind: HandoffKind
    stream: str | None = None
    channel: int | None = None
    segment: int | None = None
    revision: int | None = None
    attempts: int
    reason: str
    """Why it was refused last; the relay's words, not the sink's."""
    parked_ms: int


class SinkFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How far one sink is behind."""

    sink: str
    pending: int
    """A store may stop counting at a bound of its own, at least 100 000."""
    oldest_ms: int | None
    """When the oldest that is pending was stored."""
    dead: int


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Who relays an interview to a sink."""

    node: str
    until_ms: int
    """Raised by its holder with every renewal.  It begins at the holder's UTC, so that a lease that was given back and
    taken again is not mistaken for the old one, and the release before, which goes by it, reads what it expects; it is
    compared with no clock."""


class HandoffStore(Protocol):
    """What the outbox asks of a store.  Every method but the first may raise ``StoreUnavailable``; all can be
    repeated."""

    def hand_to(self, sinks: tuple[str, ...], *, stored: Callable[[str], None] | None = None) -> None:
        """Hand what is stored from now on to these sinks.

        A final that was stored before under the same key is not handed again.  The caller names the same sinks on
        every node.

        Args:
            sinks: none: nothing is handed on, and storing costs what it cost without.
            stored: told the interview, on the event loop, when something of it was stored for the sinks; a hint that
                may be missing.
        """

    async def due(self, sink: str, *, after: str = "", limit: int) -> tuple[str, ...]:
        """Interviews with something pending for the sink, by name, from behind ``after`` on; at most ``limit``."""

    async def waiting(self, sink: str, interview: str, *, limit: int) -> Waiting:
        """What is pending, oldest first, at most ``limit``.

        Finals come in the order in which they were stored; those of one channel always by segment.  A completion
        comes behind all finals stored before it, and only while it is true: an interview that opens again is complete
        with its next revision.  Of a deleted interview only its deletion is left, behind what was there before.
        """

    async def handed(self, sink: str, interview: str, places: Collection[int]) -> None:
        """These are done with: the sink has them, or they are superseded.  Whoever says so need hold no lease.

        What is nowhere else, such as a deletion that was handed to all sinks, goes.  Unknown places change nothing.
        """

    async def refused(self, sink: str, interview: str, place: int, *, reason: str, dead: bool, now_ms: int) -> None:
        """The sink refused this one for good: count the attempt, and park it when ``dead``."""

    # --- leases ---------------------------------------------------------------------------------------------------

    async def lease(self, sink: str, interview: str, wanted: Lease, *, over: Lease | None = None) -> Lease | None:
        """Take or renew the lease, atomically: it is free, this node's already, or still exactly ``over``.

        Returns:
            Another node's, unchanged, which is in the way; ``None``: it is ``wanted`` now.
        """

    async def release(self, sink: str, interview: str, *, node: str) -> None:
        """Give the lease back, if it is this node's."""

    # --- what operators ask ---------------------------------------------------------------------------------------

    async def figures(self) -> tuple[SinkFigures, ...]:
        """Of every sink that something is pending or dead for, by name."""

    async def dead_letters(self, *, sink: str | None = None, after: int = 0, limit: int) -> tuple[DeadLetter, ...]:
        """Dead letters by place, from behind ``after`` on; at most ``limit``."""

    async def retry(self, *, sink: str | None = None, interview: str | None = None) -> int:
        """Make dead letters pending again, each at its old place and with no attempts; how many."""


class Store(TranscriptStore, HandoffStore, Protocol):
    """Both halves: what a server needs."""
