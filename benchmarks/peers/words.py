"""Words against words."""

from __future__ import annotations

from collections.abc import Sequence


def common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many words are the same from the beginning."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def align(truth: Sequence[str], said: Sequence[str]) -> list[int | None]:
    """For each true word the place of what was said for it, by fewest edits; ``None`` where nothing was."""
    costs = [list(range(len(said) + 1))]
    for n, word in enumerate(truth, start=1):
        row = [n]
        for m, other in enumerate(said, start=1):
            row.append(min(costs[-1][m] + 1, row[m - 1] + 1, costs[-1][m - 1] + (word != other)))
        costs.append(row)
    places: list[int | None] = [None] * len(truth)
    n, m = len(truth), len(said)
    while n and m:
        if costs[n][m] == costs[n - 1][m - 1] + (truth[n - 1] != said[m - 1]):
            n, m = n - 1, m - 1
            places[n] = m
        elif costs[n][m] == costs[n - 1][m] + 1:
            n -= 1
        else:
            m -= 1
    return places
