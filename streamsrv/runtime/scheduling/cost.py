"""What batches cost, learnt from those that were heard: a line ``a + b·B`` for each kind and length of window."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

FORGET = 0.97
"""Weight of what was known when a batch is observed: the last 30 or so count."""
WORTH = 1.03
"""A smaller batch is taken when each of its windows costs no more than so many times what it costs in the largest."""
PRIOR_FIXED = 0.5
"""Share of a lone window's cost taken for fixed until batches of different sizes were seen."""

Kind: TypeAlias = tuple[bool, float]
"""(final, window in seconds).  At most two for each length of window, so the book stays small."""


@dataclass(slots=True)
class _Line:
    """Weighted sums for the line through (batch, seconds)."""

    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def add(self, x: float, y: float) -> None:
        self.weight = self.weight * FORGET + 1.0
        self.x = self.x * FORGET + x
        self.y = self.y * FORGET + y
        self.xx = self.xx * FORGET + x * x
        self.xy = self.xy * FORGET + x * y

    def fitted(self, gains: bool) -> tuple[float, float]:
        """(a, b), neither below 0; with too little spread the prior splits the mean cost."""
        mean_x, mean_y = self.x / self.weight, self.y / self.weight
        spread = self.xx / self.weight - mean_x**2
        if not gains:
            return 0.0, mean_y / mean_x
        if spread < 0.05 * mean_x**2:
            rest = mean_y * (1 - PRIOR_FIXED) if mean_x <= 1 else mean_y / (1 + PRIOR_FIXED / mean_x)
            b = rest / mean_x
            return mean_y - b * mean_x, b
        b = (self.xy / self.weight - mean_x * mean_y) / spread
        b = min(max(b, 0.0), mean_y / mean_x)
        return mean_y - b * mean_x, b


class CostBook:
    """Seconds a batch takes.

    Args:
        batch: windows the engine gains from hearing together; 1: none.
    """

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._lines: dict[Kind, _Line] = {}
        self.observed = 0

    def observe(self, *, final: bool, size_s: float, count: int, seconds: float) -> None:
        """A batch of ``count`` windows took so long."""
        self.observed += 1
        self._lines.setdefault((final, size_s), _Line()).add(float(count), seconds)

    def line(self, *, final: bool, size_s: float) -> tuple[float, float] | None:
        """(a, b) of ``a + b·B`` seconds; from the nearest kind that was seen; ``None``: nothing was seen yet."""
        seen = self._lines.get((final, size_s))
        if seen is not None:
            return seen.fitted(self._batch > 1)
        if not self._lines:
            return None

        def distance(kind: Kind) -> tuple[bool, float]:
            return kind[0] is not final, abs(kind[1] - size_s)

        nearest = min(self._lines, key=distance)
        a, b = self._lines[nearest].fitted(self._batch > 1)
        return a, b * size_s / nearest[1]

    def seconds(self, *, final: bool, size_s: float, count: int) -> float | None:
        """What a batch is expected to take."""
        line = self.line(final=final, size_s=size_s)
        return None if line is None else line[0] + line[1] * count

    def most(self, *, final: bool, size_s: float, within_s: float) -> int:
        """Windows to hear in one batch: what fits into ``within_s``, less those that hardly make it cheaper.

        Returns:
            At least 1, at most the engine's batch.
        """
        line = self.line(final=final, size_s=size_s)
        if line is None:
            return self._batch
        a, b = line
        fits = int((within_s - a) / b + 1e-9) if b > 0 else self._batch
        fits = max(1, min(self._batch, fits))
        return min(fits, math.ceil(a / ((b + a / fits) * WORTH - b))) if a > 0 else fits

    def unit(self, *, final: bool, size_s: float, within_s: float) -> float | None:
        """Seconds per window in the largest batch that takes no longer than ``within_s``."""
        line = self.line(final=final, size_s=size_s)
        if line is None:
            return None
        count = self.most(final=final, size_s=size_s, within_s=within_s)
        return line[0] / count + line[1]
