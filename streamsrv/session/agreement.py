"""Which words of a growing hypothesis can be promised.

LocalAgreement (Macháček et al. 2023, arXiv 2307.14743): a word is stable once ``needed`` successive hypotheses agree
on it and on every word before it.  What is stable binds: later hypotheses are read as a continuation of it, whatever
they now say about its place, and the final begins with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from streamsrv.facts import Position, Word


class Agreement:
    """The promised and the volatile words of one segment.

    Args:
        needed: equal successive hypotheses that make a word stable, at least 2.
    """

    __slots__ = ("_needed", "_runs", "_tail", "stable")

    def __init__(self, needed: int) -> None:
        self._needed = needed
        self._tail: tuple[Word, ...] = ()
        self._runs: list[int] = []
        self.stable: tuple[Word, ...] = ()
        """Words never taken back."""

    @property
    def words(self) -> tuple[Word, ...]:
        """Stable words, then what is believed after them."""
        return self.stable + self._tail

    @property
    def volatile(self) -> tuple[Word, ...]:
        """What is believed after the stable words."""
        return self._tail

    @property
    def stable_to(self) -> Position | None:
        """End of the last stable word; no boundary belongs before it."""
        return self.stable[-1].stop if self.stable else None

    def update(self, hypothesis: Sequence[Word]) -> None:
        """Take the next hypothesis of the whole segment, heard with more audio than the one before."""
        tail = continuation(self.stable, hypothesis)
        same = _common_prefix(self._tail, tail)
        self._runs = [run + 1 for run in self._runs[:same]] + [1] * (len(tail) - same)
        promised = 0
        while promised < len(tail) and self._runs[promised] >= self._needed:
            promised += 1
        self.stable += tail[:promised]
        self._tail = tail[promised:]
        del self._runs[:promised]

    def conclude(self, hypothesis: Sequence[Word]) -> tuple[Word, ...]:
        """The segment's final words: the stable ones, with this hypothesis's times and confidences where it has the
        same words, then its continuation."""
        promised = len(self.stable)
        if _common_prefix(self.stable, hypothesis) == promised:
            return tuple(hypothesis)
        return self.stable + continuation(self.stable, hypothesis)


def continuation(stable: Sequence[Word], hypothesis: Sequence[Word]) -> tuple[Word, ...]:
    """What ``hypothesis`` says after the stable words.

    Where it disagrees with them, the place is found by the smallest edit distance between the stable words and a
    beginning of the hypothesis; among equals, the one that ends nearest in time.
    """
    if _common_prefix(stable, hypothesis) == len(stable):
        return tuple(hypothesis[len(stable) :])
    distances = _prefix_distances([word.text for word in stable], [word.text for word in hypothesis])
    end = stable[-1].stop

    def cost(taken: int) -> tuple[int, int]:
        reached = hypothesis[taken - 1].stop if taken else stable[0].start
        return distances[taken], abs(reached - end)

    best = min(range(len(hypothesis) + 1), key=cost)
    return tuple(hypothesis[best:])


def _common_prefix(left: Sequence[Word], right: Sequence[Word]) -> int:
    same = 0
    for ours, theirs in zip(left, right, strict=False):
        if ours.text != theirs.text or ours.glued != theirs.glued:
            break
        same += 1
    return same


def _prefix_distances(whole: Sequence[str], other: Sequence[str]) -> list[int]:
    """Edit distance between ``whole`` and each beginning of ``other``; entry i is for its first i words."""
    row = list(range(len(other) + 1))
    for count, word in enumerate(whole, 1):
        diagonal, row[0] = row[0], count
        for at, theirs in enumerate(other, 1):
            diagonal, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, diagonal + (word != theirs))
    return row
