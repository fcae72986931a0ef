"""What a session has around it: its peer, and what all sessions of a server share."""

from __future__ import annotations

from typing import Protocol

from streamsrv import telemetry
from streamsrv.commands import Options
from streamsrv.events import AnyEvent
from streamsrv.facts import Position
from streamsrv.runtime.fanout import Fanout
from streamsrv.runtime.keeper import Means
from streamsrv.runtime.recorder import Recording, Warn
from streamsrv.stores.base import StreamKey


class Outlet(Protocol):
    """The peer's end: where events go.  Never waits."""

    def put(self, event: AnyEvent) -> None: ...

    def close(self, code: int, reason: str) -> None:
        """Close after everything put before."""


class Services(Means, Protocol):
    """What all drivers of a server share."""

    @property
    def metrics(self) -> telemetry.Metrics: ...
    @property
    def fanout(self) -> Fanout: ...
    def check(self, options: Options) -> None:
        """Raises Forbidden when this server does not serve these options."""

    def record(self, key: StreamKey, options: Options, begins: Position, warn: Warn) -> Recording | None:
        """A recording, when the options want one and this server makes any."""

    def now(self) -> float:
        """Monotonic seconds."""
