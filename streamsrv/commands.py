"""What a peer, or the server itself, asks of a session.  Imperatives; the facts that follow are in ``events``."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

Encoding: TypeAlias = Literal["pcm_s16le", "pcm_s24le", "pcm_f32le", "mulaw", "alaw", "container"]
"""``container``: a recording in WAV, Ogg, WebM or the like, as it grows; rate and channels are its own."""


class Command(msgspec.Struct, frozen=True, kw_only=True, tag_field="command", omit_defaults=True):
    """Base of all commands."""


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a speaker may choose for its stream; the ranges hold wherever a value is decoded into it."""

    encoding: Encoding = "pcm_s16le"
    sample_rate: Annotated[int, Meta(ge=8_000, le=192_000, multiple_of=25)] = 16_000
    """Hertz; a multiple of 25, so that 120 ms are whole samples."""
    channels: Annotated[int, Meta(ge=1, le=8)] = 1
    """Interleaved channels of the audio."""
    multichannel: bool = False
    """One transcript per channel; otherwise channels are mixed to one."""
    language: Annotated[str, Meta(pattern=r"^[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8}){0,4}$")] | None = None
    """BCP 47 tag; ``None`` leaves it to the engine."""
    interim: bool = True
    """Whether partials are wanted."""
    engine: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,31}$")] | None = None
    speaker: Annotated[str, Meta(max_length=128)] | None = None
    """Free label, kept with the stream."""
    aggressiveness: Annotated[int, Meta(ge=0, le=3)] = 2
    """VAD mode, 0 (takes much for speech) to 3."""
    hangover_ms: Annotated[int, Meta(ge=100, le=5_000)] = 400
    """Silence that ends an utterance."""
    preroll_ms: Annotated[int, Meta(ge=0, le=1_000)] = 300
    """Audio kept before the onset."""
    shortest_ms: Annotated[int, Meta(ge=20, le=2_000)] = 200
    """Speech shorter than this is no utterance."""
    longest_ms: Annotated[int, Meta(ge=2_000, le=20_000)] = 20_000
    """Longest segment."""
    record: bool = False
    """Whether the audio is kept beside the transcript."""
    task: Literal["transcribe", "translate"] = "transcribe"
    """``translate``: into English, where the engine can."""
    prompt: Annotated[str, Meta(max_length=1_000)] = ""
    """Text as it could have been said before: names, spelling, style."""
    hotwords: Annotated[str, Meta(max_length=1_000)] = ""
    """Names and terms likely to be said, separated by commas."""

    @property
    def tracks(self) -> int:
        """Channels that are transcribed on their own."""
        return self.channels if self.multichannel else 1


class Audio(Command, frozen=True, kw_only=True, tag="audio"):
    """Bytes of audio in the stream's encoding; any length.  Taken by the driver, never by the machine."""

    data: bytes


class Configure(Command, frozen=True, kw_only=True, tag="configure"):
    """Use these options; only before the first audio."""

    options: Options
    named: tuple[str, ...] = ()
    """Those of them that the peer spoke of itself."""


class Flush(Command, frozen=True, kw_only=True, tag="flush"):
    """Finalise what was said so far, now; the stream goes on."""


class Finish(Command, frozen=True, kw_only=True, tag="finish"):
    """No more audio comes: decode the tail, store it, close with 1000."""


class KeepAlive(Command, frozen=True, kw_only=True, tag="keepalive"):
    """I am still here."""


class Disconnect(Command, frozen=True, kw_only=True, tag="disconnect"):
    """The connection is gone.  ``clean``: by a close frame 1000, 1001 or 1005, which ends the stream as ``Finish``."""

    clean: bool


class Drain(Command, frozen=True, kw_only=True, tag="drain"):
    """The server goes away: finalise, tell the peer, close with 1012.  The stream itself stays resumable."""

    within_s: float


class Abort(Command, frozen=True, kw_only=True, tag="abort"):
    """End with an error; ``lasting``: the stream cannot be resumed and is ended as by ``Finish``."""

    code: str
    message: str
    hint: str = ""
    close_code: int
    retryable: bool
    retry_after_s: float | None = None
    lasting: bool = False


class Supersede(Command, frozen=True, kw_only=True, tag="supersede"):
    """A newer connection has taken the stream over: tell the peer, leave everything to the newer one."""


class Ignore(Command, frozen=True, kw_only=True, tag="ignore"):
    """Something this version does not know; answered with a warning."""

    code: Literal["unknown_message", "unknown_option"]
    what: str


AnyCommand: TypeAlias = Audio | Configure | Flush | Finish | KeepAlive | Disconnect | Drain | Abort | Supersede | Ignore
