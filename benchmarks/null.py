"""Engines that hear nothing, so that what is measured is the server."""

from __future__ import annotations

from benchmarks.tape import FRAME_BYTES, number_of
from streamsrv.engines.base import Abilities, About, Hypothesis, Listener
from streamsrv.facts import RATE_HZ, Word

WORD_SAMPLES = RATE_HZ // 2
"""A talking engine hears one word in each half second of a segment."""


class NullEngine:
    """A live engine that costs almost nothing.

    Args:
        tape: what the speakers send in a loop; each final then tells which frames of it were heard, see
            ``account``.  Empty: nothing is checked.
        talks: whether it hears ``w0 w1 ...``, so that partials are said; otherwise partials are empty.
    """

    def __init__(self, tape: bytes = b"", *, talks: bool) -> None:
        self.abilities = Abilities(live=True, languages=("en-US",), agreement=2, partial_every_s=0.1)
        self.about = About(name="null", model="none", device="cpu", note="hears nothing")
        self.healthy = True
        self.talks = talks
        self.tape = tape + tape  # so that a span that runs over the end is one slice
        self.tape_bytes = len(tape)

    async def start(self) -> None:
        """Nothing to load."""

    def listen(self, *, language: str | None, background: bool = False) -> Listener:
        return NullListener(self)

    async def close(self) -> None:
        """Nothing to free."""


class NullListener:
    """Compares what it is given with the tape, from the frame its first samples name."""

    def __init__(self, engine: NullEngine) -> None:
        self._engine = engine
        self.abandon()

    async def hear(self, samples: bytes, *, final: bool) -> Hypothesis:
        if self._engine.tape:
            self._compare(samples)
        self._heard += len(samples) // 2
        words = self._words() if self._engine.talks else ()
        if final:
            words = (*words, self._account()) if self._engine.tape else words
            self.abandon()
        return Hypothesis(words=words, language="en-US")

    def abandon(self) -> None:
        self._heard = 0
        self._first = -1
        self._at = 0
        self._intact = True

    def close(self) -> None:
        """Holds nothing."""

    def _compare(self, samples: bytes) -> None:
        engine = self._engine
        if self._first < 0 and samples:
            self._first = number_of(samples)
            self._at = self._first * FRAME_BYTES
        self._intact = self._intact and samples == engine.tape[self._at : self._at + len(samples)]
        self._at = (self._at + len(samples)) % engine.tape_bytes

    def _words(self) -> tuple[Word, ...]:
        count = self._heard // WORD_SAMPLES
        return tuple(_word(f"w{n}", n * WORD_SAMPLES, (n + 1) * WORD_SAMPLES) for n in range(count))

    def _account(self) -> Word:
        text = account(self._first, self._heard * 2 // FRAME_BYTES) if self._intact else "broken"
        return _word(text, self._heard, self._heard)


def account(first: int, frames: int) -> str:
    """The last word of a final: the tape's frame its segment begins with, and how many followed without a break."""
    return f"{first}+{frames}"


def _word(text: str, start: int, stop: int) -> Word:
    return Word(text=text, start=start, stop=stop, confidence=0.5)
