"""The whole contract of shared state: hints that the nodes of one service give each other.

A *node* is one server process.  *Hint* means that each may be lost, late, doubled or false, and that nothing but
comfort hangs on it: who owns a stream is decided by the store's epoch, finals are in the store before they are told
here, and a limit that cannot be counted over all nodes is counted on this one.  So no call raises because the others
cannot be reached, and none waits but ``open``, ``reserve``, ``start`` and ``close``, each for a bounded time.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from streamsrv.events import ViewerEvent

Condition: TypeAlias = Literal["alone", "ok", "degraded"]
"""``alone``: there are no other nodes.  ``degraded``: they are not reached, or not all of what is told arrives."""


class Notices(Protocol):
    """What a node hears from the others.  Called on the event loop; returns at once, and never raises."""

    def told(self, interview: str, stream: str, event: ViewerEvent) -> None:
        """Something happened in a stream of an interview that is watched here; each event at most once, in order."""

    def missed(self, interview: str) -> None:
        """Something may not have arrived of an interview that is watched here: the store has its finals."""

    def taken(self, interview: str, stream: str, epoch: int, node: str) -> None:
        """Another node says that this epoch of the stream is its own; the store knows whether that is true."""

    def deleted(self, interview: str) -> None:
        """Another node says that the interview was deleted; the store knows whether that is true."""


class SharedState(Protocol):
    """What this node tells the others, and asks them."""

    @property
    def condition(self) -> Condition: ...

    async def open(self, notices: Notices) -> None:
        """Begin.  Others that cannot be reached do not matter: they are looked for as long as this is open."""

    async def close(self) -> None:
        """Say good-bye, as far as somebody listens.  Safe to call twice."""

    # --- who speaks -------------------------------------------------------------------------------------------------

    def claim(self, interview: str, stream: str, epoch: int) -> None:
        """This node serves this epoch of the stream from now on; who served an older one is told."""

    def disclaim(self, stream: str, epoch: int) -> None:
        """It serves it no longer; a newer claim of the same stream stays."""

    # --- viewers ----------------------------------------------------------------------------------------------------

    def watch(self, interview: str) -> None:
        """Tell this node what happens in the interview on others; ``missed`` follows when that has begun."""

    def unwatch(self, interview: str) -> None:
        """Tell it no longer."""

    def tell(self, interview: str, stream: str, event: ViewerEvent) -> None:
        """Something happened here; costs a look-up when no other node watches the interview."""

    def delete(self, interview: str) -> None:
        """The interview was deleted here."""

    # --- shares -----------------------------------------------------------------------------------------------------

    async def reserve(self, holder: str, lease: str, most: int) -> bool | None:
        """Count one more lease of this holder over all nodes, atomically.

        Args:
            holder: whose it is; told to the others only as a hash.
            lease: a name of this node's own, until ``release``.
            most: leases the holder may have over all nodes.

        Returns:
            False when it has as many; ``None`` when that cannot be known now.  Unless false, the lease is counted from
            now on, as far as the others can be reached, until it is released or this node is gone.
        """

    def release(self, holder: str, lease: str) -> None:
        """The lease is over."""

    async def start(self, holder: str, most: int) -> float | None:
        """Count one more beginning of this holder over all nodes, atomically.

        Args:
            holder: whose it is; told to the others only as a hash.
            most: beginnings the holder may have in any minute, over all nodes.

        Returns:
            0 when it was counted; else the seconds after which one more may begin; ``None`` when that cannot be known
            now, and then it may have been counted or not.
        """
