"""Any client rate -> 16 000 Hz, streaming, in float32; rounding is ours (``_native.pcm.round_into``).

soxr at quality HQ takes its own delay out: output sample ``k`` is the input at time ``k / 16000`` of this run, so a
position never drifts; the newest few milliseconds stay inside until more audio or ``finish`` comes.  (Its int16 output
is dithered, hence not repeatable, and is not used.)
"""

from __future__ import annotations

import numpy as np
import soxr  # type: ignore[import-untyped]

from streamsrv._native.pcm import round_into
from streamsrv._native.ring import RingBuffer
from streamsrv.audio.formats import AudioFormat
from streamsrv.facts import RATE_HZ

WITHHELD = 4_096
"""Output samples soxr may hold back or give at once beyond the input's own length; kept free in the ring."""


class Resampler:
    """Resamples all tracks of one stream into its rings.

    Args:
        layout: the client's format; its rate differs from 16 000 Hz.
        rings: one per track.
    """

    __slots__ = ("_rings", "_stream", "_tracks")

    def __init__(self, layout: AudioFormat, rings: tuple[RingBuffer, ...]) -> None:
        self._tracks = layout.tracks
        self._rings = rings
        self._stream = soxr.ResampleStream(layout.rate_hz, RATE_HZ, layout.tracks, dtype="float32", quality="HQ")

    def push(self, floats: bytes, *, last: bool = False) -> int:
        """Resample what came in.

        Args:
            floats: float32 at the client's rate, tracks interleaved, full scale 1.0.
            last: nothing follows; gives out what was held back.

        Returns:
            Samples appended to each ring.

        Raises:
            RingFull: the caller did not keep ``WITHHELD`` samples free beside the input's own length.
        """
        rows = np.frombuffer(floats, np.float32).reshape(-1, self._tracks)
        out = self._stream.resample_chunk(rows, last=last)
        return round_into(np.ascontiguousarray(out, np.float32).data, self._rings)
