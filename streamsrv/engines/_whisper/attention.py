"""What Whisper remembers of one channel of one session: features, language, and the words it is told to expect."""

from __future__ import annotations

from typing import Final

from streamsrv.audio.mel import Floats, MelTrack
from streamsrv.engines._whisper.model import Tongue
from streamsrv.facts import Position

MOST_CONTEXT: Final = 223
"""Tokens before ``<|startoftranscript|>`` at most, half of what Whisper's decoder holds; of a longer prompt its end is
kept, of hot words their beginning."""
MOST_HOTWORDS: Final = 112
"""Tokens of hot words at most; the prompt gets the rest."""


class WhisperAttention:
    """See ``engines.base.Attention``.

    Args:
        filters: mel filters of the model.
        language: Whisper's code; ``None`` while it is not known.
        task: ``transcribe`` or ``translate``.
        prompt: text as it could have been said before.
        hotwords: names and terms likely to be said.
    """

    __slots__ = ("_context", "_hotwords", "_prompt", "closed", "language", "task", "track")

    def __init__(
        self, filters: Floats, *, language: str | None, task: str, prompt: str, hotwords: tuple[str, ...]
    ) -> None:
        self.track = MelTrack(filters)
        self.language = language
        """Given, or found once and kept."""
        self.task = task
        self.closed = False
        self._prompt = " ".join(prompt.split())
        self._hotwords = ", ".join(" ".join(word.split()) for word in hotwords)
        self._context: tuple[int, ...] | None = None

    def take(self, samples: bytes, position: Position) -> None:
        if not self.closed:
            self.track.take(samples, position)

    def forget(self, before: Position) -> None:
        self.track.forget(before)

    def close(self) -> None:
        self.closed = True
        self.track.forget(self.track.end)

    def context(self, tongue: Tongue) -> tuple[int, ...]:
        """Tokens before ``<|startoftranscript|>``: none, or ``<|startofprev|>``, hot words and prompt."""
        if self._context is None:
            hotwords = tongue.encode(" " + self._hotwords)[:MOST_HOTWORDS] if self._hotwords else []
            room = MOST_CONTEXT - len(hotwords)
            said = tongue.encode(" " + self._prompt)[-room:] if self._prompt else []
            self._context = (tongue.sot_prev, *hotwords, *said) if hotwords or said else ()
        return self._context
