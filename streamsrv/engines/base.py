"""The whole contract of an engine: something that turns speech into words.

Two kinds.  A *live* engine takes audio while the speaker still speaks and keeps its own state per segment
(PocketSphinx, cloud services); ``runtime.live`` drives it.  A *window* engine hears whole spans, gains from batches
and keeps no state (Whisper); ``runtime.scheduler`` drives it.  Callers ask ``abilities``, never names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from streamsrv.errors import EngineError
from streamsrv.facts import Position, Word


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
    whole_finals: bool = True
    """Whether a final gains from hearing its whole segment again; otherwise it goes on where its partials began."""
    conclusive: bool = False
    """Whether a hypothesis about the whole of a segment can be its final (those that say so)."""
    partial_every_s: float = 0.12
    """Promised seconds between two partial hypotheses."""
    parallel: int = 1
    """Calls of ``WindowEngine.hear`` it gains from at once."""
    sharing: int = 1
    """How many of them share the time of one device: alone each is so many times faster at most."""
    floor_s: float = 1.0
    """Window engines: a shorter span costs what one of so many seconds costs."""
    final_floor_s: float = 0.0
    """The same for finals, if that is longer."""


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
    conclusive: bool = False
    """The engine would say the same of this span if it were asked for a final."""


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

    def listen(self, *, language: str | None, background: bool = False) -> Listener:
        """A listener for one channel of one session.

        Args:
            language: BCP 47, or the engine's own choice.
            background: hears a file: whatever live speech needs goes first, however long that takes.

        Raises:
            UnsupportedLanguage: says which it knows.
        """

    async def close(self) -> None:
        """Free models, processes and sockets.  Safe to call twice."""


# --- engines that hear whole spans ------------------------------------------------------------------------------

WINDOWS_S = (1, 2, 3, 5, 8, 12, 20, 30)
"""Lengths of windows: a span is padded to the next of these, so that several can be heard in one batch."""


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """How one session wants to be heard, where its engine can."""

    task: str = "transcribe"
    """Or ``translate``: into English."""
    prompt: str = ""
    """Text as it could have been said before."""
    hotwords: tuple[str, ...] = ()
    """Names and terms likely to be said."""


PLAIN = Wishes()


class Attention(Protocol):
    """What a window engine remembers of one channel of one session: features computed once, language, prompt.

    Used by one thread at a time, whichever that is.
    """

    def take(self, samples: bytes, position: Position) -> None:
        """Take audio that follows what was taken before; a gap forgets everything before it.

        Args:
            samples: int16 little-endian, 16 000 Hz, mono.
            position: of the first sample.
        """

    def forget(self, before: Position) -> None:
        """Audio before this position is not asked about any more."""

    def close(self) -> None:
        """The session is over.  Safe to call twice."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """One span to be heard."""

    attention: Attention
    start: Position
    stop: Position
    """Taken by ``attention`` before the call."""
    final: bool
    """Worth more effort: beam, word times, full window where set."""
    prefix: tuple[Word, ...] = ()
    """Stable words of the span; the answer begins with them."""


class WindowEngine(Protocol):
    """An engine that hears whole spans and gains from hearing several together."""

    @property
    def abilities(self) -> Abilities: ...

    @property
    def about(self) -> About: ...

    @property
    def healthy(self) -> bool: ...

    async def start(self) -> None:
        """Load and warm up.

        Raises:
            SetupError: it cannot work here; the hint holds the remedy.
        """

    def attend(
        self, *, language: str | None, task: str = "transcribe", prompt: str = "", hotwords: tuple[str, ...] = ()
    ) -> Attention:
        """What is remembered of one channel.

        Raises:
            UnsupportedLanguage: says which it knows.
        """

    def hear(self, windows: Sequence[Window]) -> Sequence[Hypothesis | EngineError]:
        """Recognise windows of different sessions together; answers come in the order of the questions.

        Blocking, called in worker threads, at most ``abilities.parallel`` at once.  Times in a hypothesis count from
        its window's ``start``.  A window that fails fails alone: its answer is ``EngineFailed``; ``EngineBusy`` means
        that it was not heard and may be asked again.  What is raised concerns all windows.
        """

    async def close(self) -> None:
        """Free models and memory.  Safe to call twice."""
