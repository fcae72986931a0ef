"""What the inside reports to a session: the front's marks, an engine's answers, the store's receipts.

A *position* is a count of 16 000 Hz samples of one channel since the stream began: it only grows, it never wraps,
and it is never a clock.  Times called ``at`` or ``now`` are monotonic seconds, given by the caller.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

RATE_HZ = 16_000
"""Samples a second of every position in the program."""

Position: TypeAlias = int
Cause: TypeAlias = Literal["vad", "flush", "finish", "length"]
"""Why a segment ended: silence, the client's ``flush``, the end of the stream, the longest length."""


class Fact(msgspec.Struct, frozen=True, kw_only=True, tag_field="fact", omit_defaults=True):
    """Base of all facts."""


# --- where a run begins -----------------------------------------------------------------------------------------


class ChannelStart(msgspec.Struct, frozen=True, kw_only=True):
    """Where a channel of a resumed stream begins again."""

    restart: Position = 0
    """Restart point: VAD and segmenter begin here, fresh."""
    kept_to: Position = 0
    """End of the last stored final; at it the epoch begins."""
    next_segment: int = 0
    next_utterance: int = 0


# --- marks: the front's facts, per channel ----------------------------------------------------------------------


class SpeechBegan(Fact, frozen=True, kw_only=True, tag="speech_began"):
    """Somebody began to speak; a new utterance and its first segment open."""

    channel: int
    start: Position
    """First sample of the segment, pre-roll included; never inside the previous segment."""
    position: Position
    """Newest decided sample when this was found; ``position >= start``."""


class SpeechEnded(Fact, frozen=True, kw_only=True, tag="speech_ended"):
    """The open segment ends."""

    channel: int
    stop: Position
    """End of the segment, exclusive.  When the utterance goes on, the next segment starts here."""
    speech_stop: Position
    """End of the last frame with speech, exclusive; ``speech_stop <= stop``."""
    speech_at: float
    """Arrival of that frame, monotonic seconds."""
    cause: Cause
    over: bool
    """Whether the utterance ends too.  False: a cut by length or flush in mid-speech; the next segment is open."""
    position: Position


class Advanced(Fact, frozen=True, kw_only=True, tag="advanced"):
    """Audio was decided up to here; at least every 100 ms of audio in speech, every second in silence."""

    channel: int
    position: Position
    """Everything before is decided: in a segment, or silence."""
    restart: Position
    """Newest restart point: a multiple of 1 920 samples, outside any segment, where VAD and segmenter were reset, at
    least pre-roll + onset window behind ``position``.  A run that begins here finds the same boundaries."""
    quiet: int = 0
    """Samples without speech before ``position``, while a segment is open: it may be about to end."""


class Gap(Fact, frozen=True, kw_only=True, tag="gap"):
    """Samples between ``start`` and ``stop`` never arrived; silence stands in their place."""

    channel: int
    start: Position
    stop: Position


class CutMade(Fact, frozen=True, kw_only=True, tag="cut_made"):
    """The front did what ``Cut`` asked; the marks that came of it came before this one."""

    cause: Literal["flush", "part", "finish"]
    position: Position
    """End of the audio, over all channels."""


Mark: TypeAlias = SpeechBegan | SpeechEnded | Advanced | Gap | CutMade


# --- answers ----------------------------------------------------------------------------------------------------


class Word(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One word as an engine heard it."""

    text: str
    """Without spaces around it; NFC."""
    start: Position
    stop: Position
    confidence: float
    """0.0 to 1.0, always a number."""
    estimated: bool = False
    """Whether ``confidence`` is a guess because the engine gave none."""
    glued: bool = False
    """No space stands between this word and the one before (Chinese, Japanese, punctuation)."""


class Answer(Fact, frozen=True, kw_only=True, tag="answer"):
    """An engine's answer to one ``Hear``."""

    request: int
    words: tuple[Word, ...] = ()
    """Positions are the stream's, inside the span asked for."""
    language: str | None = None
    """BCP 47 tag the engine used or found."""
    engine: str = ""
    failed: bool = False
    """The engine gave this segment up after its retries; ``words`` is empty."""
    every_s: float = 0.0
    """Seconds between two partials that the engine has time for now; 0: as it promises."""
    conclusive: bool = False
    """A final of the same span would have the same words."""


# --- receipts ---------------------------------------------------------------------------------------------------


class FinalKept(Fact, frozen=True, kw_only=True, tag="final_kept"):
    """A final is durable."""

    channel: int
    segment: int
    durable: Literal["store", "spool"] = "store"


class ProgressKept(Fact, frozen=True, kw_only=True, tag="progress_kept"):
    """The store knows from where each channel can be restarted."""

    restarts: tuple[Position, ...]
    """Per channel."""


class Settled(Fact, frozen=True, kw_only=True, tag="settled"):
    """The store knows that the stream has ended."""


class Outdated(Fact, frozen=True, kw_only=True, tag="outdated"):
    """A newer epoch owns the stream; what this one offers is no longer taken."""


Receipt: TypeAlias = FinalKept | ProgressKept | Settled | Outdated
