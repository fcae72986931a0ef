"""The whole contract of an engine: something that turns speech into words.

Two kinds.  A *live* engine takes audio while the speaker still speaks and keeps its own state per segment
(PocketSphinx, cloud services); ``runtime.live`` drives it.  A *window* engine hears whole spans, gains from batches
and keeps no state (Whisper); ``runtime.scheduler`` drives it.  Callers ask ``abilities``, never names.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from streamsrv.facts import Word


class Abilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine can do; callers ask this, never its name."""

    live: bool
    """Takes audio in pieces while the speaker still speaks; otherwise whole spans only."""
    languages: tuple[str, ...] | None
    """BCP 47 tags it understands, such as ``"en-US"``; ``None``: finds out by itself, any."""
    batch: int = 1
    """Spans it gains from hearing together; 1 when it gains nothing."""
    agreement: int = 2
    """Equal successive hypotheses after which a word of it counts as stable, at least 2."""
    prefix: bool = False
    """Whether a decode can be forced to begin with given words."""
    partial_every_s: float = 0.12
    """Seconds between two partial hypotheses worth asking for, when the machine is idle."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What the ready line, ``/health`` and ``ready`` tell about an engine."""

    name: str
    model: str
    device: str
    note: str = ""
    """One honest sentence about its accuracy and limits."""


class Hypothesis(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine believes was said in the segment so far."""

    words: tuple[Word, ...]
    """``start`` and ``stop`` in 16 kHz samples from the start of the *segment* (not of the stream)."""
    language: str | None = None


class Listener(Protocol):
    """One channel of one session, listening segment after segment.  One call at a time."""

    async def hear(self, samples: bytes, *, final: bool) -> Hypothesis:
        """Take the next audio of the open segment and tell what is believed so far.

        Args:
            samples: int16 little-endian, 16 000 Hz, mono; what follows the previous call; may be empty.
            final: the segment ends here; the next call opens a new one.

        Raises:
            EngineBusy: nothing was taken; ask again with the same samples.
            EngineLost: the segment's state is gone; replay it from its start with the same listener.
            EngineFailed: this segment will fail again.
        """

    def abandon(self) -> None:
        """Forget the open segment; the next call opens a new one.  Safe at any time, also during ``hear``."""

    def close(self) -> None:
        """The session is over; frees what it held.  Safe to call twice."""


class LiveEngine(Protocol):
    """An engine that listens while people speak."""

    @property
    def abilities(self) -> Abilities: ...

    @property
    def about(self) -> About: ...

    @property
    def healthy(self) -> bool:
        """Whether it can hear now; shown in ``/health``."""

    async def start(self) -> None:
        """Load models, start workers.

        Raises:
            SetupError: it cannot work here; the hint holds the remedy.
        """

    def listen(self, *, language: str | None) -> Listener:
        """A listener for one channel of one session.

        Raises:
            UnsupportedLanguage: says which it knows.
        """

    async def close(self) -> None:
        """Free models, processes and sockets.  Safe to call twice."""
