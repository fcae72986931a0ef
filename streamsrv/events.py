"""What a session tells its speaker and its viewers.  Facts, in the program's own units; dialects give them wire form.

Every event is about one stream.  ``channel`` is 0 unless the stream is multichannel.  *Utterance* counts speech
starts, *segment* counts finals, both from 0 per channel.  A segment has exactly one final.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from streamsrv.commands import Options
from streamsrv.facts import Cause, Position, Word


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", omit_defaults=True):
    """Base of all events."""


class ChannelState(msgspec.Struct, frozen=True, kw_only=True):
    """Where one channel goes on."""

    channel: int
    kept_to: Position
    """Everything before is in stored finals; samples before it are ignored when they come again."""
    next_segment: int


class Ready(Event, frozen=True, kw_only=True, tag="ready"):
    """The session is open; send audio from ``resume_at``."""

    epoch: int
    resume_at: Position
    channels: tuple[ChannelState, ...]
    options: Options
    finals: tuple[Final, ...] = ()
    """A resumed stream's newest finals so far, oldest first."""


class Configured(Event, frozen=True, kw_only=True, tag="configured"):
    """These options hold from now on."""

    options: Options


class SpeechStarted(Event, frozen=True, kw_only=True, tag="speech_started"):
    channel: int
    utterance: int
    at: Position


class SpeechStopped(Event, frozen=True, kw_only=True, tag="speech_stopped"):
    channel: int
    utterance: int
    at: Position
    """End of the last speech, not of the silence that proved it."""


class Partial(Event, frozen=True, kw_only=True, tag="partial"):
    """What is believed so far of the open segment; replaces the partial before."""

    channel: int
    utterance: int
    segment: int
    start: Position
    stop: Position
    """Audio up to here was heard."""
    text: str
    stable_chars: int
    """The first so many code points (NFC) are never taken back."""
    words: tuple[Word, ...] = ()
    lag_ms: int
    """Now minus the arrival of the newest sample this covers."""


class Final(Event, frozen=True, kw_only=True, tag="final"):
    """The words of one segment, for good."""

    channel: int
    utterance: int
    segment: int
    start: Position
    stop: Position
    text: str
    words: tuple[Word, ...] = ()
    language: str | None = None
    cause: Cause
    endpoint: bool
    """Whether the utterance ended with it."""
    engine: str
    failed: bool = False
    """The engine gave up on this segment; ``text`` is empty, the audio was speech."""
    durable: Literal["store", "spool"] = "store"
    latency_ms: int = 0
    """Said minus arrival of the segment's last speech sample."""
    endpoint_ms: int = 0
    """Share of ``latency_ms`` spent waiting for the endpoint."""


class UtteranceEnd(Event, frozen=True, kw_only=True, tag="utterance_end"):
    """All finals of the utterance were said."""

    channel: int
    utterance: int
    last_word_stop: Position


class Ack(Event, frozen=True, kw_only=True, tag="ack"):
    """Everything before ``position`` is in stored finals or was silence: the client may forget it."""

    position: Position
    flushed: bool = False
    """Answers a ``flush``: the finals of all audio sent before it were said."""


class Degraded(Event, frozen=True, kw_only=True, tag="degraded"):
    """Service is worse than promised, or as promised again (``active`` false)."""

    reason: Literal["buffer", "store", "engine", "load"]
    active: bool
    message: str


class Warned(Event, frozen=True, kw_only=True, tag="warning"):
    code: str
    message: str
    channel: int | None = None
    segment: int | None = None


class AudioGap(Event, frozen=True, kw_only=True, tag="audio_gap"):
    channel: int
    start: Position
    stop: Position


class GoAway(Event, frozen=True, kw_only=True, tag="goaway"):
    """The server will close within ``within_ms``; reconnect elsewhere with the resume token."""

    within_ms: int


class Failed(Event, frozen=True, kw_only=True, tag="error"):
    """Precedes every abnormal close."""

    code: str
    message: str
    hint: str = ""
    retryable: bool
    retry_after_ms: int | None = None


class Closed(Event, frozen=True, kw_only=True, tag="closed"):
    """The stream has ended; nothing follows but the close frame."""

    cause: Literal["finish", "disconnect", "timeout", "error"]
    position: Position
    finals: int


class StreamOver(Event, frozen=True, kw_only=True, tag="stream_over"):
    """Told to viewers alone: this stream has ended, nothing of it follows."""


AnyEvent: TypeAlias = (
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
)

ViewerEvent: TypeAlias = AnyEvent | StreamOver
