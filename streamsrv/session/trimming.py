"""Where the span of a partial begins: a long segment is not heard from its start again and again.

What is stable is decided, so the span may begin at any word that is.  It does once it would be longer than the engine
hears at its lowest price; an hour of monologue then costs per second what its first minute costs.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from streamsrv.facts import RATE_HZ, Position, Word
from streamsrv.session.settings import MachineSettings


class Trim(msgspec.Struct, frozen=True, kw_only=True):
    """What a question leaves out of its segment."""

    start: Position = 0
    """Where it begins; means nothing while ``words`` is 0."""
    words: int = 0
    """Stable words before ``start``."""


UNTRIMMED = Trim()


def trimmed(trim: Trim, stable: Sequence[Word], *, start: Position, stop: Position, settings: MachineSettings) -> Trim:
    """How a partial up to ``stop`` leaves out the beginning of its segment; the trim so far while that is short enough.

    Args:
        trim: of the partial before.
        stable: the segment's stable words.
        start: of the segment.
        stop: end of the span.
    """
    longest = settings.trim_after_s
    if longest is None or stop - (trim.start if trim.words else start) <= longest * RATE_HZ:
        return trim
    wanted = stop - round(longest * settings.trim_to_s * RATE_HZ)
    latest = stable[-1].stop - round(settings.trim_context_s * RATE_HZ) if stable else start
    best = trim
    for words in range(trim.words + 1, len(stable)):
        boundary = _between(stable[words - 1], stable[words])
        if boundary > latest:
            break
        best = Trim(start=boundary, words=words)
        if boundary >= wanted:
            break
    return best


def _between(left: Word, right: Word) -> Position:
    """The middle of the pause between two words; never before the start of the left one."""
    return max((left.stop + right.start) // 2, left.start)
