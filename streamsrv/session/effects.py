"""What a session asks of its driver.  Spans and words, never bytes."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from streamsrv.events import AnyEvent, Final
from streamsrv.facts import Position, Word


class Effect(msgspec.Struct, frozen=True, kw_only=True, tag_field="effect", omit_defaults=True):
    """Base of all effects."""


class Say(Effect, frozen=True, kw_only=True, tag="say"):
    """Tell the peer."""

    event: AnyEvent


class Hear(Effect, frozen=True, kw_only=True, tag="hear"):
    """Ask the engine what was said between ``start`` and ``stop``; it answers with ``Answer(request=...)``."""

    request: int
    channel: int
    segment: int
    start: Position
    stop: Position
    final: bool
    """The segment is complete; otherwise a partial is wanted."""
    prefix: tuple[Word, ...] = ()
    """Words already stable: the answer should begin with them."""
    deadline: float
    """Monotonic seconds by which the answer is wanted."""


class Forget(Effect, frozen=True, kw_only=True, tag="forget"):
    """The answer to this request is no longer wanted."""

    request: int


class Keep(Effect, frozen=True, kw_only=True, tag="keep"):
    """Store this final; answered by ``FinalKept``.  In segment order per channel."""

    final: Final


class Note(Effect, frozen=True, kw_only=True, tag="note"):
    """Store these restart points, one per channel; answered by ``ProgressKept``."""

    restarts: tuple[Position, ...]


class Cut(Effect, frozen=True, kw_only=True, tag="cut"):
    """Close the open segments; marks follow, then ``CutMade``."""

    cause: Literal["flush", "part", "finish"]
    """``flush``: at the newest sample; ``part``: between words, for somebody hears the rest again; ``finish``: the last
    sample has come."""
    channels: tuple[int, ...] = ()
    """Of a ``part``: those with something to part.  Segments of others stay open."""


class Hold(Effect, frozen=True, kw_only=True, tag="hold"):
    """Place no boundary of this channel before ``earliest``: the words before it are promised."""

    channel: int
    earliest: Position


class Release(Effect, frozen=True, kw_only=True, tag="release"):
    """Audio of this channel before ``position`` is in stored finals and may be forgotten."""

    channel: int
    position: Position


class Settle(Effect, frozen=True, kw_only=True, tag="settle"):
    """All finals are stored: mark the stream ended; answered by ``Settled``."""


class Close(Effect, frozen=True, kw_only=True, tag="close"):
    """Close the connection after what was said."""

    code: int
    reason: str = ""


class Leave(Effect, frozen=True, kw_only=True, tag="leave"):
    """The session is over; free everything it held."""


AnyEffect: TypeAlias = Say | Hear | Forget | Keep | Note | Cut | Hold | Release | Settle | Close | Leave
