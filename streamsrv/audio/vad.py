"""Voice activity detectors: is there a voice in these 20 ms?

The segmenter consults one detector per channel, frame after frame, and resets it at restart points.  After ``reset``
a detector must be as new: its decisions may depend only on the frames it was given since.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import _webrtcvad

from streamsrv.facts import RATE_HZ

FRAME = 320
"""Samples of one decision, 20 ms."""


class Vad(Protocol):
    """One channel's detector."""

    @property
    def most_gain(self) -> int:
        """Power of two, 1 to 64, by which it wants to hear frames louder in quiet surroundings; 1: as they are."""

    @property
    def decide(self) -> Callable[[bytes, int], bool]:
        """``decide(frame, samples)``: whether a voice is in ``frame``, int16 of the machine's order, 16 000 Hz.

        A property so that a detector can hand out its fastest callable; taken once per stream.
        """

    def reset(self) -> None:
        """Be as new."""


class WebRtcVad:
    """The detector of WebRTC: Gaussian models of six bands, about 2 µs a frame.

    Args:
        aggressiveness: 0 takes much for speech, 3 little.
    """

    __slots__ = ("_aggressiveness", "_handle", "decide")

    decide: Callable[[bytes, int], bool]
    most_gain = 32
    """Its models expect speech near full scale; 30 dB more let it find speech at -66 dBFS (native/README.md)."""

    def __init__(self, aggressiveness: int) -> None:
        self._aggressiveness = aggressiveness
        self._handle: object = _webrtcvad.create()
        self.reset()
        # The extension's own function: its Python class only checks lengths, which are right here.
        self.decide = partial(_webrtcvad.process, self._handle, RATE_HZ)

    def reset(self) -> None:
        _webrtcvad.init(self._handle)
        _webrtcvad.set_mode(self._handle, self._aggressiveness)
