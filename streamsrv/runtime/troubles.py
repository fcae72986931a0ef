"""What goes wrong in a session, in its own words: service that is worse than promised, errors that end it."""

from __future__ import annotations

from typing import Literal, TypeAlias

from streamsrv import commands, events
from streamsrv.errors import StreamsrvError

RING_S = 60
"""Audio held per channel at most; when less than ``LOW_S`` is free, reading pauses."""
LOW_S = 5

Reason: TypeAlias = Literal["buffer", "store", "engine", "load"]

_DEGRADED: dict[Reason, str] = {
    "buffer": f"less than {LOW_S} s of the {RING_S} s audio buffer is free; reading pauses until there is room",
    "store": "the store is away; finals are kept on this server or wait, and nothing is acknowledged until it is back",
    "engine": "the engine is busy or restarting; words come late",
    "load": "the server has much to hear; partials come less often, finals come as ever",
}
_RESTORED: dict[Reason, str] = {
    "buffer": "the audio buffer has room again",
    "store": "the store is back",
    "engine": "the engine hears again",
    "load": "partials come as often as ever",
}


def degraded(reason: Reason, active: bool) -> events.Degraded:
    """The event for a trouble that begins or ends."""
    return events.Degraded(reason=reason, active=active, message=(_DEGRADED if active else _RESTORED)[reason])


def abortion(error: StreamsrvError, *, lasting: bool = False) -> commands.Abort:
    """The command that ends a session with this error."""
    return commands.Abort(
        code=error.code,
        message=error.message,
        hint=error.hint,
        close_code=error.close_code,
        retryable=error.retryable,
        retry_after_s=error.retry_after_s,
        lasting=lasting,
    )


def farewell(abort: commands.Abort) -> events.Failed:
    """What the peer of a session that ends at once is told."""
    return events.Failed(code=abort.code, message=abort.message, hint=abort.hint, retryable=abort.retryable)
