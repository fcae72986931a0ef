"""Engines of the tests: they keep the whole contract and hear a known text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from streamsrv.engines.base import Abilities, About, Hypothesis, Listener
from streamsrv.errors import UnsupportedLanguage
from streamsrv.facts import RATE_HZ, Word

WORD_SAMPLES = RATE_HZ // 2
"""Each half second of a segment is one word."""


class CountingListener:
    """Hears ``w0 w1 ...``: one word for each half second of the segment, so that lost or doubled audio shows."""

    def __init__(self, engine: CountingEngine) -> None:
        self._engine = engine
        self._heard = 0

    async def hear(self, samples: bytes, *, final: bool) -> Hypothesis:
        await self._engine.gate(final)
        self._heard += len(samples) // 2
        count = self._heard // WORD_SAMPLES
        words = tuple(
            Word(text=f"w{n}", start=n * WORD_SAMPLES, stop=(n + 1) * WORD_SAMPLES, confidence=0.5)
            for n in range(count)
        )
        if final:
            self._heard = 0
        return Hypothesis(words=words, language="en-US")

    def abandon(self) -> None:
        self._heard = 0

    def close(self) -> None:
        pass


class CountingEngine:
    """A live engine without speech recognition.  ``gate`` may be replaced to delay or fail calls."""

    def __init__(self, name: str = "counting") -> None:
        self.abilities = Abilities(live=True, languages=("en-US",), agreement=2, partial_every_s=0.1)
        self.about = About(name=name, model="none", device="cpu", note="counts half seconds")
        self.healthy = True
        self.gate: Callable[[bool], Awaitable[None]] = _open

    async def start(self) -> None:
        pass

    def listen(self, *, language: str | None, background: bool = False) -> Listener:
        if language not in (None, "en-US", "en"):
            raise UnsupportedLanguage(f"'{language}' is not known here", hint="use en-US")
        return CountingListener(self)

    async def close(self) -> None:
        pass


async def _open(final: bool) -> None:
    return None
