"""Every error a caller can meet, on one page.

Each class says whose fault it is (``ClientFault`` or ``ServerFault``) and carries what each edge needs:

* ``code``: a stable word for programs;
* ``http_status``: the answer while the connection is still HTTP;
* ``close_code``: the WebSocket close code once it is a socket (RFC 6455 section 7.4, 4xxx is ours);
* ``retryable``: whether the same request may succeed later;
* ``hint``: what to do about it, one sentence.

Messages name the input, the limit and the remedy, and never contain what people said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class StreamsrvError(Exception):
    """Base of every error of ours; never raised itself.

    Args:
        message: what happened, for a person: the input, the limit.
        hint: what to do about it; the class's own hint when omitted.
        retry_after_s: seconds after which a retry makes sense, where known.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    close_code: ClassVar[int] = 1011
    retryable: ClassVar[bool] = False
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint
        self.retry_after_s = retry_after_s
        self.more: Mapping[str, object] = {}
        """What an HTTP answer says beside the error."""


class ClientFault(StreamsrvError):
    """The caller must change something."""

    code = "bad_request"
    http_status = 400
    close_code = 1008


class ServerFault(StreamsrvError):
    """The caller did nothing wrong."""


# --- the caller's side ------------------------------------------------------------------------------------------


class BadRequest(ClientFault):
    """An option, an id or a field is not acceptable."""


class BadMessage(ClientFault):
    """A text message is not the JSON this protocol speaks."""

    code = "bad_message"
    close_code = 1007
    default_hint = "send one JSON object per text message, as docs/protocol.md describes"


class WrongMessageKind(ClientFault):
    """A kind of message this protocol does not take."""

    code = "wrong_message_kind"
    close_code = 1003
    default_hint = "audio goes in binary messages, commands in JSON text messages"


class MessageTooBig(ClientFault):
    """One message is over the protocol's size limit."""

    code = "message_too_big"
    http_status = 413
    close_code = 1009
    default_hint = "send smaller messages"


class BodyTooBig(ClientFault):
    """A request body is over its limit."""

    code = "body_too_big"
    http_status = 413
    close_code = 1009


class UnsupportedMedia(ClientFault):
    """A body or an encoding this server does not take."""

    code = "unsupported_media"
    http_status = 415
    close_code = 1003


class BadMedia(ClientFault):
    """The bytes are of a kind this server takes, and hold no audio that can be decoded within its limits."""

    code = "bad_media"
    http_status = 422
    close_code = 1007
    default_hint = "see whether a player can play it; export it again, as WAV, FLAC or MP3 if you can"


class MediaTooLong(ClientFault):
    """The recording lasts longer than this server decodes."""

    code = "media_too_long"
    http_status = 413
    close_code = 4413
    default_hint = "send it in parts"


class TooSlow(ClientFault):
    """A request body came more slowly than this server waits for."""

    code = "too_slow"
    http_status = 408
    retryable = True


class Unauthorized(ClientFault):
    """No API key, or a wrong one."""

    code = "unauthorized"
    http_status = 401
    default_hint = "send the API key as 'Authorization: Bearer KEY'"


class Forbidden(ClientFault):
    """The origin, the peer or the token is not allowed here."""

    code = "forbidden"
    http_status = 403


class NotFound(ClientFault):
    """Nothing is stored under this name."""

    code = "not_found"
    http_status = 404


class Conflict(ClientFault):
    """The interview already holds as many live streams as it may."""

    code = "conflict"
    http_status = 409


class StreamEnded(ClientFault):
    """The stream to be resumed has ended; its transcript is complete."""

    code = "stream_ended"
    http_status = 410
    default_hint = "'ended' tells how far it was heard; connect without 'resume' to begin a new stream"


class UpgradeRequired(ClientFault):
    """A plain request where a WebSocket handshake belongs."""

    code = "upgrade_required"
    http_status = 426


class UnsupportedLanguage(ClientFault):
    """The chosen engine does not know the language."""

    code = "unsupported_language"


class Superseded(ClientFault):
    """Somebody resumed this stream elsewhere with its token."""

    code = "superseded"
    http_status = 409
    close_code = 4409
    default_hint = "only the newest connection of a stream is served; close the other one first"


class Idle(ClientFault):
    """The speaker sent nothing for too long."""

    code = "idle"
    http_status = 408
    close_code = 4408
    retryable = True
    default_hint = 'send audio or {"type":"keepalive"}; resume with the token from \'ready\''


class TooLong(ClientFault):
    """The stream is over the longest this server allows."""

    code = "too_long"
    close_code = 4413
    default_hint = "begin a new stream"


class Flood(ClientFault):
    """More messages a second than a stream may send."""

    code = "flood"
    http_status = 429
    close_code = 4429
    default_hint = "put more audio into each message: 40 to 100 ms is best"


class RateLimited(ClientFault):
    """More streams and uploads begun than the API key may begin in a minute."""

    code = "rate_limited"
    http_status = 429
    close_code = 1013
    retryable = True
    default_hint = "begin again after the time given, and resume a stream that was cut instead of beginning a new one"


class Stopped(ClientFault):
    """The interview was deleted while this stream was live."""

    code = "stopped"
    close_code = 1008


# --- our side ---------------------------------------------------------------------------------------------------


class Draining(ServerFault):
    """The server is going away; another one, or its successor, takes over."""

    code = "draining"
    http_status = 503
    close_code = 1012
    retryable = True
    default_hint = "reconnect; resume with the token from 'ready'"


class Full(ServerFault):
    """The server serves as many sessions as it can serve well."""

    code = "full"
    http_status = 503
    close_code = 1013
    retryable = True
    default_hint = "try again after the time given, or another server"


class StoreUnavailable(ServerFault):
    """Transcripts cannot be kept or read at the moment."""

    code = "store_unavailable"
    http_status = 503
    retryable = True


class DiskFull(ServerFault):
    """There is no room for the file; nothing of it was kept."""

    code = "disk_full"
    http_status = 507
    close_code = 1013
    retryable = True
    default_hint = "try again when the server has room, or send a smaller file, such as FLAC or Opus"


class DecoderLost(ServerFault):
    """The process that decoded this audio died or hung; nothing is known to be wrong with the audio."""

    code = "decoder_lost"
    http_status = 503
    retryable = True
    default_hint = "send the audio again"


class ServerLost(ServerFault):
    """The whole server died while it heard this audio, again and again."""

    code = "server_lost"
    default_hint = "send it in another format, or in parts; the system's log may tell why the server was killed"


class SetupError(ServerFault):
    """The server cannot start as configured; ``hint`` holds the remedy.  Exit code 3."""

    code = "setup"


class EngineError(ServerFault):
    """Base of what engines raise."""

    code = "engine"


class EngineBusy(EngineError):
    """Nothing was heard; ask again later."""

    code = "engine_busy"
    http_status = 503
    close_code = 1013
    retryable = True


class EngineLost(EngineError):
    """The engine's worker died or hung; the segment must be replayed from its start."""

    code = "engine_lost"
    retryable = True


class EngineFailed(EngineError):
    """This audio will fail again on this engine."""

    code = "engine_failed"


class RingFull(ServerFault):
    """Audio was offered to a ring that has no room; the writer must wait, nothing was taken."""

    code = "ring_full"
    retryable = True
