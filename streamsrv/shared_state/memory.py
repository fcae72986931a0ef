"""One node alone: it has nobody to tell, and its own limits are the limits."""

from __future__ import annotations

from streamsrv.events import ViewerEvent
from streamsrv.shared_state.base import Condition, Notices


class MemoryState:
    """See ``base.SharedState``; what is shared on one node stays in the memory of who shares it."""

    condition: Condition = "alone"

    async def open(self, notices: Notices) -> None:
        return None

    async def close(self) -> None:
        return None

    def claim(self, interview: str, stream: str, epoch: int) -> None:
        return None

    def disclaim(self, stream: str, epoch: int) -> None:
        return None

    def watch(self, interview: str) -> None:
        return None

    def unwatch(self, interview: str) -> None:
        return None

    def tell(self, interview: str, stream: str, event: ViewerEvent) -> None:
        return None

    def delete(self, interview: str) -> None:
        return None

    async def reserve(self, holder: str, lease: str, most: int) -> bool | None:
        return True

    def release(self, holder: str, lease: str) -> None:
        return None

    async def start(self, holder: str, most: int) -> float | None:
        return 0.0
