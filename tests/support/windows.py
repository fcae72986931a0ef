"""A window engine of the tests: keeps the whole contract, hears a known text, and can be held, broken and hung."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence

from streamsrv.engines.base import Abilities, About, Attention, Hypothesis, Window
from streamsrv.errors import EngineBusy, EngineError, EngineFailed, UnsupportedLanguage
from streamsrv.facts import RATE_HZ, Position, Word

WORD_SAMPLES = RATE_HZ // 2
"""Each half second of a stream is one word, ``w0 w1 ...``, counted from the stream's start."""
_voices = itertools.count()


class ScriptedAttention:
    """Holds the audio it was given; complains when two threads are at it, or when it is used after its end."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.engine = engine
        self.voice = next(_voices)
        self.start: Position = 0
        self.audio = b""
        self.closed = 0
        self.asked: tuple[str, str, tuple[str, ...]] = ("transcribe", "", ())
        """Task, prompt and hot words."""
        self.faults: list[str] = []
        self._used = threading.Lock()

    @property
    def stop(self) -> Position:
        return self.start + len(self.audio) // 2

    def take(self, samples: bytes, position: Position) -> None:
        if not self._used.acquire(blocking=False):
            self.faults.append("two threads at once")
            return
        if self.closed:
            self.faults.append("used after its end")
        if position != self.stop:
            self.start, self.audio = position, b""
        self.audio += samples
        self._used.release()

    def forget(self, before: Position) -> None:
        cut = min(max(0, before - self.start), len(self.audio) // 2)
        self.start, self.audio = self.start + cut, self.audio[2 * cut :]

    def close(self) -> None:
        self.closed += 1

    def samples(self, start: Position, stop: Position) -> bytes:
        """What it holds of a span.

        Raises:
            EngineFailed: not all of it.
        """
        if not self.start <= start <= stop <= self.stop:
            self.faults.append(f"{start}..{stop} asked, {self.start}..{self.stop} held")
            raise EngineFailed("the audio of this window was not given")
        return self.audio[2 * (start - self.start) : 2 * (stop - self.start)]


class ScriptedEngine:
    """Hears ``w3 w4 ...``: one word for each whole half second of the stream in the window.

    Attributes:
        script: called in the engine's thread before each batch; may wait or raise.
        batches: every batch heard, in order.
        attentions: every attention ever given out.
    """

    def __init__(
        self, *, batch: int = 8, parallel: int = 1, every_s: float = 0.5, prefix: bool = True, name: str = "scripted"
    ) -> None:
        self.abilities = Abilities(
            live=False,
            languages=("en-US",),
            batch=batch,
            agreement=2,
            prefix=prefix,
            partial_every_s=every_s,
            parallel=parallel,
            floor_s=5.0,
        )
        self.about = About(name=name, model="none", device="cpu", note="counts half seconds")
        self.healthy = True
        self.script: Callable[[Sequence[Window]], None] = lambda windows: None
        self.judge: Callable[[Window], Hypothesis | EngineError] = counted
        self.batches: list[tuple[Window, ...]] = []
        self.attentions: list[ScriptedAttention] = []
        self.closed = 0
        self.starts = 0

    async def start(self) -> None:
        self.starts += 1
        self.healthy = True

    def attend(
        self, *, language: str | None, task: str = "transcribe", prompt: str = "", hotwords: tuple[str, ...] = ()
    ) -> Attention:
        if not self.healthy:
            raise EngineBusy("not loaded yet")
        if language not in (None, "en-US", "en"):
            raise UnsupportedLanguage(f"'{language}' is not known here", hint="use en-US")
        attention = ScriptedAttention(self)
        attention.asked = (task, prompt, hotwords)
        self.attentions.append(attention)
        return attention

    def hear(self, windows: Sequence[Window]) -> Sequence[Hypothesis | EngineError]:
        self.batches.append(tuple(windows))
        for window in windows:
            assert isinstance(window.attention, ScriptedAttention)
            if window.attention.engine is not self:
                window.attention.faults.append("given to another engine")
        self.script(windows)
        return [self.judge(window) for window in windows]

    async def close(self) -> None:
        self.closed += 1

    @property
    def faults(self) -> list[str]:
        """What was done to the attentions that must not be done."""
        return [fault for attention in self.attentions for fault in attention.faults]


def counted(window: Window) -> Hypothesis | EngineError:
    """The words of a window, when its attention holds its audio."""
    attention = window.attention
    assert isinstance(attention, ScriptedAttention)
    try:
        attention.samples(window.start, window.stop)
    except EngineFailed as error:
        return error
    first = -(-window.start // WORD_SAMPLES)
    words = tuple(
        Word(
            text=f"w{n}",
            start=n * WORD_SAMPLES - window.start,
            stop=(n + 1) * WORD_SAMPLES - window.start,
            confidence=0.5,
        )
        for n in range(first, window.stop // WORD_SAMPLES)
    )
    return Hypothesis(words=words, language="en-US")
