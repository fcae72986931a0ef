"""From the scheduler's windows to tasks: features in place, ready to be decoded in batches of equal shape."""

from __future__ import annotations

from typing import Final

from streamsrv.audio.mel import HOP
from streamsrv.engines._whisper.attention import WhisperAttention
from streamsrv.engines._whisper.settings import LONGEST_S
from streamsrv.engines.base import WINDOWS_S, Hypothesis, Window
from streamsrv.errors import EngineError, EngineFailed
from streamsrv.facts import RATE_HZ

FRAMES_A_SECOND: Final = RATE_HZ // HOP
TAIL: Final = 10
"""Frames of silence behind each window, so that also one that is full ends in silence; 30 s have no room for them."""


class Task:
    """One window on its way through the engine.

    Attributes:
        place: where its answer belongs.
        frames: columns of its features, silence included.
        spoken: columns of its features that hold audio.
        answer: set once it is known.
    """

    __slots__ = ("answer", "attention", "frames", "place", "spoken", "window")

    def __init__(self, place: int, window: Window, frames: int) -> None:
        self.place = place
        self.window = window
        self.attention = _ours(window)
        self.frames = frames
        self.spoken = self.attention.track.frames(window.start, window.stop)
        self.answer: Hypothesis | EngineError | None = None

    @property
    def samples(self) -> int:
        """Length of the span."""
        return self.window.stop - self.window.start


def _ours(window: Window) -> WhisperAttention:
    if not isinstance(window.attention, WhisperAttention):
        raise TypeError("a window holds the attention of another engine")
    return window.attention


def frames_of(window: Window, *, floor_s: int, full: bool) -> int:
    """Columns of a window's features.

    Args:
        floor_s: shortest window.
        full: finals get 30 s.

    Raises:
        EngineFailed: it is empty, or longer than Whisper hears.
    """
    samples = window.stop - window.start
    if samples <= 0:
        raise EngineFailed(f"a window of {samples} samples cannot be heard")
    if samples > LONGEST_S * RATE_HZ:
        raise EngineFailed(f"a window of {samples} samples is longer than the {LONGEST_S} s Whisper hears")
    return columns(LONGEST_S if full and window.final else max(samples / RATE_HZ, floor_s))


def columns(seconds: float) -> int:
    """Columns of the shortest window that holds so many seconds, at most 30."""
    length = next(length for length in WINDOWS_S if length >= seconds)
    return min(length * FRAMES_A_SECOND + TAIL, LONGEST_S * FRAMES_A_SECOND)
