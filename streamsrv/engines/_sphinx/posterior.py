"""Words as the first pass has them, with confidences from the lattice's best path where both agree.

Pure: no decoder here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from streamsrv.engines._sphinx.wire import Heard

SAMPLES_PER_FRAME: Final = 160
GUESS: Final = 0.5
"""Confidence of a word of which the lattice's best path says nothing."""
DISPUTED: Final = 0.2
"""Confidence of a word where the best path has another one."""
_VARIANT: Final = re.compile(r"\(\d+\)$")


class Spoken(NamedTuple):
    """One entry of the decoder's segmentation: a word or a filler, first and last frame, posterior."""

    word: str
    first: int
    last: int
    posterior: float


def with_posteriors(first: Sequence[Spoken], best: Sequence[Spoken]) -> Iterator[Heard]:
    """The words of ``first``; confidence where ``best`` has the same word at an overlapping time.

    Args:
        first: first pass, in time order.
        best: best path of its lattice, in time order; empty when there is none yet.
    """
    rival = _words(best)
    at = 0
    for text, spoken in _words(first):
        while at < len(rival) and rival[at][1].last < spoken.first:
            at += 1
        confidence, estimated = _confidence(text, spoken, rival, at)
        yield Heard(
            text=text,
            start=spoken.first * SAMPLES_PER_FRAME,
            stop=(spoken.last + 1) * SAMPLES_PER_FRAME,
            confidence=confidence,
            estimated=estimated,
        )


def _confidence(text: str, spoken: Spoken, rival: list[tuple[str, Spoken]], at: int) -> tuple[float, bool]:
    for other, entry in rival[at:]:
        if entry.first > spoken.last:
            break
        if other == text:
            return min(max(entry.posterior, 0.0), 1.0), False
    return (DISPUTED if rival else GUESS), True


def _words(entries: Sequence[Spoken]) -> list[tuple[str, Spoken]]:
    return [(_VARIANT.sub("", entry.word), entry) for entry in entries if not is_filler(entry.word)]


def is_filler(word: str) -> bool:
    """Silence and noises: ``<s>``, ``<sil>``, ``[NOISE]``, ``++BREATH++``."""
    return word[:1] in {"<", "[", "+"}
