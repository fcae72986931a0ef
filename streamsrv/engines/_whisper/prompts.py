"""What the decoder is given before it speaks: context, language, task, and the words it must begin with."""

from __future__ import annotations

from typing import Final

from streamsrv.engines._whisper.model import Tongue
from streamsrv.facts import RATE_HZ, Word

LONGEST: Final = 448
"""Tokens Whisper's decoder holds, prompt and answer together."""
SPARE_TOKENS: Final = 8
"""An answer may have so many tokens more than its seconds allow: short windows hold whole words too."""
# fmt: off
LATIN: Final = frozenset((
    "en", "es", "fr", "de", "it", "pt", "nl", "sv", "no", "da", "fi", "is", "et", "lv", "lt", "pl", "cs", "sk", "sl",
    "hr", "bs", "ro", "hu", "sq", "tr", "az", "id", "ms", "tl", "sw", "af", "eu", "gl", "ca", "oc", "cy", "br", "mt",
    "lb", "la", "mi", "ha", "yo", "so", "sn", "jw", "su", "mg", "ht", "ln", "vi", "haw",
))
# fmt: on
"""Languages whose words are one or two tokens; others need up to one for each byte."""
DENSE_FACTOR: Final = 3.0
"""So much more than ``tokens_per_s`` do those others get."""


def sort_of(tongue: Tongue) -> list[int]:
    """Language, task and ``<|notimestamps|>`` as the prompt's own part; equally long for all windows of a model."""
    return [*tongue.sot_sequence, tongue.no_timestamps]


def spelled(tongue: Tongue, words: tuple[Word, ...]) -> list[list[int]]:
    """The tokens of each word, as the model writes it."""
    return [tongue.encode(word.text if word.glued else " " + word.text) for word in words]


def most_tokens(samples: int, prefix: int, prompt: int, *, language: str, tokens_per_s: float) -> int:
    """Tokens an answer may have, its prefix included.

    A second of silence allows as much as one of speech: how much of a window is speech is not known.  What is loud in
    it (``Sound.loud``) is no measure of that, for behind a cough a quiet voice is not loud, and its words would be cut.
    So a loop in a window with pauses is cut later; that it is one tells ``guards``.

    Args:
        samples: length of the span, pauses included.
        prefix: tokens it must begin with.
        prompt: tokens before it.
    """
    rate = tokens_per_s if language in LATIN else tokens_per_s * DENSE_FACTOR
    fair = SPARE_TOKENS + round(samples / RATE_HZ * rate)
    return max(1, min(max(fair, prefix + SPARE_TOKENS), LONGEST - prompt - 1, LONGEST // 2))


def longest(most: int, prompt: int) -> int:
    """``max_length`` for CTranslate2, which gives an answer the lesser of half of it and of what the prompt leaves."""
    return min(LONGEST, most + max(most, prompt))
