"""What the server says, as a client reads it: small frozen structs, decoded from the wire by msgspec.

Fields a newer server adds are ignored; a message of a kind this version does not know becomes ``Unknown``.  Times named
``_ms`` are milliseconds of audio since the stream began; ``samples``, ``resume_at`` and ``kept_to`` count samples per
channel at the client's own rate.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from streamsrv.commands import Options
from streamsrv.errors import ServerFault


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """Base of everything ``Transcription.events`` yields."""

    session: str = ""
    stream: str = ""
    seq: int = -1
    """This connection's count from 0; -1 where the client itself speaks, or a stored final is told again."""


class Word(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    text: str
    start_ms: int
    stop_ms: int
    confidence: float
    """0.0 to 1.0."""
    estimated: bool = False
    """Whether the engine did not give the confidence."""


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """Where one channel goes on; samples before ``kept_to`` are in stored finals and ignored when they come again."""

    channel: int = 0
    kept_to: int = 0
    next_segment: int = 0


class Engine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str = ""
    model: str | None = None
    device: str | None = None
    note: str | None = None
    """What to know about it, for people."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    binary_bytes: int = 1_048_576
    text_bytes: int = 16_384
    messages_per_s: int = 1_000
    idle_timeout_s: float = 60.0
    resume_window_s: float = 60.0
    max_stream_s: float = 14_400.0


class SpeechStarted(Message, frozen=True, kw_only=True, tag="speech_started"):
    channel: int = 0
    utterance: int = 0
    at_ms: int = 0


class SpeechStopped(Message, frozen=True, kw_only=True, tag="speech_stopped"):
    channel: int = 0
    utterance: int = 0
    at_ms: int = 0


class Partial(Message, frozen=True, kw_only=True, tag="partial"):
    """What is believed of the open segment; replaces the partial before."""

    channel: int = 0
    utterance: int = 0
    segment: int
    text: str
    stable_chars: int = 0
    """The first so many code points of ``text`` (NFC) are never taken back."""
    start_ms: int = 0
    stop_ms: int = 0
    words: tuple[Word, ...] = ()
    lag_ms: int = 0


class Final(Message, frozen=True, kw_only=True, tag="final"):
    """The words of one segment, for good; empty text when nothing was heard."""

    channel: int = 0
    utterance: int = 0
    segment: int
    text: str
    words: tuple[Word, ...] = ()
    start_ms: int = 0
    stop_ms: int = 0
    language: str | None = None
    cause: str = "vad"
    """``vad`` silence, ``flush``, ``finish`` or ``length``."""
    endpoint: bool = True
    engine: str = ""
    failed: bool = False
    """Whether the engine gave the segment up: ``text`` is empty, the audio was speech."""
    durable: str = "store"
    latency_ms: int = 0
    endpoint_ms: int = 0


class Ready(Message, frozen=True, kw_only=True, tag="ready"):
    """The connection serves; comes first, and again after each reconnection."""

    interview: str = ""
    epoch: int = 1
    resume_token: str
    resume_at: int = 0
    """The sample to send next."""
    channels: tuple[Channel, ...] = ()
    finals: tuple[Final, ...] = ()
    options: Options = msgspec.field(default_factory=Options)
    engine: Engine = msgspec.field(default_factory=Engine)
    limits: Limits = msgspec.field(default_factory=Limits)


class Configured(Message, frozen=True, kw_only=True, tag="configured"):
    options: Options


class UtteranceEnd(Message, frozen=True, kw_only=True, tag="utterance_end"):
    channel: int = 0
    utterance: int = 0
    last_word_ms: int = 0


class Ack(Message, frozen=True, kw_only=True, tag="ack"):
    """Samples before ``samples`` are in stored finals or were silence."""

    samples: int
    flushed: bool = False
    """Answers a ``flush``."""


class Degraded(Message, frozen=True, kw_only=True, tag="degraded"):
    reason: str
    active: bool
    message: str = ""


class Warned(Message, frozen=True, kw_only=True, tag="warning"):
    code: str
    message: str = ""
    channel: int | None = None
    segment: int | None = None


class AudioGap(Message, frozen=True, kw_only=True, tag="audio_gap"):
    channel: int = 0
    start_ms: int = 0
    stop_ms: int = 0


class GoAway(Message, frozen=True, kw_only=True, tag="goaway"):
    """The server leaves within ``within_ms``; the client comes back by itself."""

    within_ms: int = 0


class Failed(Message, frozen=True, kw_only=True, tag="error"):
    """Precedes every abnormal close."""

    code: str
    message: str = ""
    hint: str = ""
    retryable: bool = False
    retry_after_ms: int | None = None


class Closed(Message, frozen=True, kw_only=True, tag="closed"):
    """The stream has ended, all its finals were said."""

    cause: str = "finish"
    audio_ms: int = 0
    finals: int = 0


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a stream ended that is asked for too late."""

    samples: int | None = None
    """Length of its audio; ``None``: not known."""
    audio_ms: int | None = None
    count: int = 0
    """Finals it has."""
    finals: tuple[Final, ...] = ()
    """The newest of them."""


class Unknown(Message, frozen=True, kw_only=True, tag="unknown"):
    """A message of a newer server."""

    kind: str


class Reconnecting(Message, frozen=True, kw_only=True, tag="reconnecting"):
    """Said by the client itself: the connection is gone, the next attempt follows after a pause."""

    attempt: int
    """From 1, since the connection last worked."""
    pause_s: float
    why: str
    unacknowledged_s: float
    """Seconds of audio kept for sending again."""


AnyMessage: TypeAlias = (
    Ready
    | Configured
    | SpeechStarted
    | SpeechStopped
    | Partial
    | Final
    | UtteranceEnd
    | Ack
    | Degraded
    | Warned
    | AudioGap
    | GoAway
    | Failed
    | Closed
    | Unknown
    | Reconnecting
)


class NotUnderstood(ServerFault):
    """The server said something that is not this protocol."""

    code = "not_understood"
    default_hint = "check that the URL names a streamsrv server, and that it and this client are of one version"


class _Head(msgspec.Struct, frozen=True):
    type: str


_HEAD = msgspec.json.Decoder(_Head)
_FACES: dict[str, msgspec.json.Decoder[AnyMessage]] = {
    "ready": msgspec.json.Decoder(Ready),
    "configured": msgspec.json.Decoder(Configured),
    "speech_started": msgspec.json.Decoder(SpeechStarted),
    "speech_stopped": msgspec.json.Decoder(SpeechStopped),
    "partial": msgspec.json.Decoder(Partial),
    "final": msgspec.json.Decoder(Final),
    "utterance_end": msgspec.json.Decoder(UtteranceEnd),
    "ack": msgspec.json.Decoder(Ack),
    "degraded": msgspec.json.Decoder(Degraded),
    "warning": msgspec.json.Decoder(Warned),
    "audio_gap": msgspec.json.Decoder(AudioGap),
    "goaway": msgspec.json.Decoder(GoAway),
    "error": msgspec.json.Decoder(Failed),
    "closed": msgspec.json.Decoder(Closed),
}


def decode(text: str | bytes) -> AnyMessage:
    """Read one text message.

    Raises:
        NotUnderstood: it is no JSON object with a ``type``, or a known one without its fields.
    """
    try:
        kind = _HEAD.decode(text).type
        face = _FACES.get(kind)
        return Unknown(kind=kind) if face is None else face.decode(text)
    except (msgspec.DecodeError, UnicodeError) as failure:
        # A DecodeError names the place and the type it wanted, never the value: nothing anybody said is in it.
        raise NotUnderstood(f"a message of the server could not be read: {failure}") from None
