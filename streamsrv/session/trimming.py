"""Where the span of a partial begins: a long segment is not heard from its start again and again.

What is stable is decided, so the span may begin at any word that is.  It does once it would be longer than the engine
hears at its lowest price; an hour of monologue then costs per second what its first minute costs.

Where a word begins is the engine's guess.  A span that begins within a word, or behind one that was given, is heard
wrong: words come twice or not at all.  So a new beginning is tried when something is believed behind the stable words,
and its answer counts when it goes on with that.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from streamsrv.facts import RATE_HZ, Position, Word
from streamsrv.session.settings import MachineSettings

MOST_DOUBTED = 3.0
"""A new beginning is not doubted when the span with the old one would be longer than so many times the longest: an
engine that never says the same twice must not hear all of a segment for that."""


class Trim(msgspec.Struct, frozen=True, kw_only=True):
    """What a question leaves out of its segment."""

    start: Position = 0
    """Where it begins; means nothing while ``words`` is 0."""
    words: int = 0
    """Stable words before ``start``."""

    def begins(self, segment: Position) -> Position:
        """Where the question begins, of a segment that begins here."""
        return self.start if self.words else segment


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
    if longest is None or stop - trim.begins(start) <= longest * RATE_HZ:
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


def overdue(trim: Trim, *, start: Position, stop: Position, settings: MachineSettings) -> bool:
    """Whether a span that begins where the last one did is so long that a new beginning needs no proof."""
    longest = settings.trim_after_s
    return longest is not None and stop - trim.begins(start) > MOST_DOUBTED * longest * RATE_HZ


def doubtful(given: Sequence[Word], expected: Sequence[Word], heard: Sequence[Word]) -> bool:
    """Whether a span with a new beginning was heard as if it began at the wrong place.

    A new word that says the last one again may be true; the old beginning tells.

    Args:
        given: stable words the answer was made to begin with.
        expected: what was believed after them, heard from the old beginning.
        heard: what comes after them now.
    """
    ours, theirs = [_plain(word) for word in given], [_plain(word) for word in heard]
    if expected:
        again = len(theirs) > len(expected) and theirs[len(expected)] == theirs[len(expected) - 1]
        return again or not theirs or theirs[0] != _plain(expected[0])
    return any(theirs[:many] == ours[-many:] for many in range(1, min(len(ours), len(theirs)) + 1))


def _plain(word: Word) -> str:
    """Its letters and digits, if it has any: what surrounds them comes and goes."""
    return "".join(filter(str.isalnum, word.text.casefold())) or word.text


def _between(left: Word, right: Word) -> Position:
    """The middle of the pause between two words; never before the start of the left one."""
    return max((left.stop + right.start) // 2, left.start)
