"""What a driver asks to hear for it: the scheduler for window engines, ``live`` for live ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias

from streamsrv.engines.base import Wishes
from streamsrv.events import Final
from streamsrv.facts import Answer, Position
from streamsrv.session.effects import Hear

Read: TypeAlias = Callable[[int, Position, Position], bytes]
"""``(channel, start, stop)`` -> int16 little-endian samples; the ring holds them until the final is stored."""
Answered: TypeAlias = Callable[[Answer], None]
Troubled: TypeAlias = Callable[[bool], None]
"""The engine cannot hear at the moment (true), or can again (false)."""
Trouble: TypeAlias = Literal["engine", "load"]
"""Why an ear hears less than promised: the engine does not hear, or partials come less often."""
Picked: TypeAlias = Callable[[int], Hear | None]
"""The newest form of a question that has waited; ``None``: its answer is no longer wanted."""


class TroubledBy(Protocol):
    """Told when an ear hears less than promised (true), and when that is over (false), and why."""

    def __call__(self, active: bool, reason: Trouble = "engine") -> None: ...


class Ear(Protocol):
    """Hears for one session.  Each question gets one answer, by ``Answered``, unless it is forgotten."""

    def hear(self, question: Hear) -> None:
        """Take a question; never waits."""

    def forget(self, request: int) -> None:
        """The answer is no longer wanted."""

    def ended(self, final: Final) -> None:
        """A segment has its final; nothing more is asked about it."""

    def close(self) -> None:
        """The session is over; nothing is answered any more.  Safe to call twice."""


class MakeEar(Protocol):
    """Makes the ear of one session."""

    def __call__(
        self,
        *,
        channels: int,
        language: str | None,
        read: Read,
        answered: Answered,
        troubled: TroubledBy,
        picked: Picked,
        wishes: Wishes,
    ) -> Ear: ...
