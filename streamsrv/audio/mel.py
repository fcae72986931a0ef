"""Whisper's features of one channel by absolute position: each 10 ms hop is computed once, windows are cut from it."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from streamsrv._native.mel import LogMel
from streamsrv.facts import RATE_HZ, Position

HOP: Final = 160
"""Samples between two hops: 10 ms."""
MOST_HOPS: Final = 75 * RATE_HZ // HOP
"""Hops kept per channel, 160 to 256 bytes each: what a ring of 60 s holds and some; then the oldest are forgotten."""

Floats = npt.NDArray[np.float32]


class MelTrack:
    """Log-mel hops of one channel.  Not for two threads at once.

    Args:
        filters: mel filters of the model, float32, shape ``(bands, 201)``.
    """

    __slots__ = ("_base", "_filters", "_mel")

    def __init__(self, filters: Floats) -> None:
        self._filters = np.ascontiguousarray(filters, np.float32)
        self._mel = self._fresh()
        self._base: Position = 0

    @property
    def bands(self) -> int:
        """Mel bands of the model: 80 or 128."""
        return self._mel.mels

    @property
    def start(self) -> Position:
        """First sample a window may begin with."""
        return self._base + HOP * self._mel.start

    @property
    def end(self) -> Position:
        """One past the newest sample taken."""
        return self._base + self._mel.samples

    @property
    def allocated(self) -> int:
        """Bytes of memory behind the hops now."""
        return self._mel.allocated

    def take(self, samples: bytes, position: Position) -> None:
        """Take audio that follows what was taken before; a gap forgets everything before it.

        Args:
            samples: int16 little-endian, 16 000 Hz, mono.
            position: of the first sample; what was taken already is passed over.
        """
        known = self.end - position
        if known < 0 or position < self._base or not self._mel.samples:
            self._mel, self._base, known = self._fresh(), position, 0
        if 2 * known < len(samples):
            self._mel.push(memoryview(samples)[2 * known :])

    def forget(self, before: Position) -> None:
        """Windows do not begin before this position any more."""
        self._mel.forget((before - self._base) // HOP)

    def frames(self, start: Position, stop: Position) -> int:
        """Columns ``fill`` writes for this span before the silence."""
        first, last = self._hops(start, stop)
        return last - first

    def fill(self, out: Floats, start: Position, stop: Position) -> float:
        """Write the features of a window, scaled as Whisper wants, silence behind them.

        Args:
            out: C-contiguous, shape ``(bands, frames)``; one frame is 10 ms.
            start: first sample of the window.
            stop: end of the window, exclusive; hops at the newest sample see zeros after it.

        Returns:
            log10 of the largest mel energy: -10 is digital silence.

        Raises:
            ValueError: the window was forgotten, has not come yet, or is longer than ``out``.
        """
        first, last = self._hops(start, stop)
        return self._mel.fill(out.data, first, last, out.shape[1])

    def _hops(self, start: Position, stop: Position) -> tuple[int, int]:
        # Hops are centred on multiples of 160: the window takes those whose centre lies in it.
        return -((self._base - start) // HOP), -((self._base - stop) // HOP)

    def _fresh(self) -> LogMel:
        return LogMel(self._filters.data, len(self._filters), MOST_HOPS)
