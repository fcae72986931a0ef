"""Shared state whose other nodes are the test: it sees what this node tells, and says what the others say."""

from __future__ import annotations

from streamsrv.events import ViewerEvent
from streamsrv.shared_state.base import Condition, Notices
from streamsrv.shared_state.memory import MemoryState


class Puppet(MemoryState):
    """See ``shared_state.base.SharedState``."""

    def __init__(self) -> None:
        self.condition: Condition = "ok"
        self.answer: bool | None = True
        """To whoever reserves."""
        self.wait_s: float | None = 0.0
        """To whoever starts."""
        self.started: list[tuple[str, int]] = []
        self.notices: Notices
        self.claims: dict[str, int] = {}
        self.watched: set[str] = set()
        self.told: list[tuple[str, str, ViewerEvent]] = []
        self.deleted: list[str] = []
        self.leases: set[tuple[str, str]] = set()
        self.closed = False

    async def open(self, notices: Notices) -> None:
        self.notices = notices

    async def close(self) -> None:
        self.closed = True

    def claim(self, interview: str, stream: str, epoch: int) -> None:
        self.claims[stream] = epoch

    def disclaim(self, stream: str, epoch: int) -> None:
        if self.claims.get(stream) == epoch:
            del self.claims[stream]

    def watch(self, interview: str) -> None:
        self.watched.add(interview)

    def unwatch(self, interview: str) -> None:
        self.watched.discard(interview)

    def tell(self, interview: str, stream: str, event: ViewerEvent) -> None:
        self.told.append((interview, stream, event))

    def delete(self, interview: str) -> None:
        self.deleted.append(interview)

    async def reserve(self, holder: str, lease: str, most: int) -> bool | None:
        if self.answer is not False:
            self.leases.add((holder, lease))
        return self.answer

    def release(self, holder: str, lease: str) -> None:
        self.leases.remove((holder, lease))

    async def start(self, holder: str, most: int) -> float | None:
        self.started.append((holder, most))
        return self.wait_s
