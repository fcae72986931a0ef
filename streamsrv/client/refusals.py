"""How a stream can fail for its client, and what a close or a status says about coming back."""

from __future__ import annotations

import msgspec

from streamsrv.client.messages import Ended, Failed
from streamsrv.errors import ClientFault, ServerFault, StreamsrvError

SUPERSEDED = 4409
FINAL_CLOSES = frozenset({SUPERSEDED, 4413})
"""Closes after which the stream cannot be resumed by this client, whatever the message before said."""
LATER_STATUSES = frozenset({408, 425, 429})
"""Client-side statuses that only ask for patience."""


class Refused(StreamsrvError):
    """The server said no, for good or for now (``retryable``)."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str,
        hint: str = "",
        retryable: bool = False,
        retry_after_s: float | None = None,
        ended: Ended | None = None,
    ) -> None:
        """
        Args:
            message: what the server said.
            status: the HTTP status, or the WebSocket close code (1000 and above).
            code: the server's word for programs, such as ``stream_ended`` or ``superseded``.
            ended: how the stream ended that was to be resumed.
        """
        super().__init__(message, hint=hint, retry_after_s=retry_after_s)
        self.status = status
        self.ended = ended
        self.code = code  # type: ignore[misc]  # a constant of every other error, the server's word here
        self.retryable = retryable  # type: ignore[misc]


class Unreachable(ServerFault):
    """No connection came about."""

    code = "unreachable"
    retryable = True
    default_hint = "check the URL, and that the server runs ('streamsrv serve')"

    def __init__(self, message: str, *, asked: bool = False) -> None:
        """
        Args:
            asked: the request was sent; the server may yet read it.
        """
        super().__init__(message)
        self.asked = asked


class GaveUp(ServerFault):
    """The connection was lost and did not come back in time; ``message`` tells how much audio was not acknowledged."""

    code = "gave_up"
    retryable = True
    default_hint = "send that audio again as a new stream when the server is back"


class AudioForgotten(ServerFault):
    """The server asks for audio from a place that is not kept: before an ack it gave, or after all that was sent."""

    code = "audio_forgotten"
    default_hint = "the server's store was put back or replaced; begin a new stream"


class Misused(ClientFault):
    """A call that this state of the stream does not allow."""

    code = "misused"


class Cut(Exception):
    """Inside the client: a connection ended before its stream.

    Args:
        code: of the close frame; ``None`` when there was none.
        error: the last ``error`` message of this connection.
        why: for people.
    """

    def __init__(self, code: int | None, error: Failed | None, why: str = "") -> None:
        self.code, self.error = code, error
        self.why = why or (f"closed with {code}" if code is not None else "the connection broke")
        if error is not None:
            self.why += f": {error.message}"
        super().__init__(self.why)

    def refusal(self) -> Refused | None:
        """The reason not to come back; ``None`` when the stream can be resumed."""
        return self.as_refused() if self._permanent else None

    @property
    def _permanent(self) -> bool:
        return self.code in FINAL_CLOSES or (self.code == 1008 and not (self.error and self.error.retryable))

    def as_refused(self) -> Refused:
        """This close, as the error that ends the stream."""
        word = _CLOSE_WORDS.get(self.code or 0, "closed")
        error = self.error or Failed(code=word, message=self.why, retryable=not self._permanent)
        return Refused(
            error.message or self.why,
            status=self.code or 1006,
            code=error.code,
            hint=error.hint,
            retryable=error.retryable,
            retry_after_s=self.retry_after_s or None,
        )

    @property
    def retry_after_s(self) -> float:
        """Seconds the server asked to wait, 0 when it did not."""
        return ((self.error and self.error.retry_after_ms) or 0) / 1000


_CLOSE_WORDS = {1008: "policy", SUPERSEDED: "superseded", 4413: "too_long"}


class _Error(msgspec.Struct, frozen=True):
    code: str = "refused"
    message: str = ""
    hint: str = ""
    retryable: bool | None = None


class _Body(msgspec.Struct, frozen=True):
    error: _Error
    ended: Ended | None = None


def refused(status: int, body: bytes, retry_after: str | None) -> Refused:
    """What an HTTP answer other than 101 says.

    Args:
        status: the HTTP status.
        body: ``{"error": {...}}`` from our server, anything from what stands before it.
        retry_after: that header, in seconds; its date form is not taken.
    """
    try:
        told = msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, UnicodeError):
        told = _Body(_Error(hint="" if status >= 400 else "check that the URL names a streamsrv server"))
    error = told.error
    later = status >= 500 or status in LATER_STATUSES
    return Refused(
        error.message or f"the server answered with HTTP status {status}",
        status=status,
        code=error.code,
        hint=error.hint,
        retryable=later if error.retryable is None else error.retryable,
        retry_after_s=float(retry_after) if retry_after and retry_after.isdecimal() else None,
        ended=told.ended,
    )
