"""Audio that is not what its options say: files that are called samples, and samples read in the wrong form.

A look at the beginning of a stream, before it costs a speaker an interview.  What cannot be samples is refused; what
merely looks wrong is told.  A wrong sample rate cannot be seen in samples, so it is not looked for.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from streamsrv.commands import Options
from streamsrv.errors import UnsupportedMedia

HEAD_BYTES = 44
"""Bytes at the beginning in which a file is known by its magic; a plain WAV header is so long."""
BLOCK_SAMPLES = 4_000
"""Samples judged together; enough that a block of speech looks like speech."""
LOUD_BLOCKS = 3
"""Loud blocks in a row that must agree before anything is told."""
MOST_BLOCKS = 480
"""Blocks looked at in all; a stream that was quiet for so long (two minutes at 16 kHz) is not looked at any more."""
LOUD = 600.0
"""Root mean square (-35 dBFS) from which a block says something."""
VERY_LOUD = 7_000.0
"""Root mean square (-13 dBFS) from which speech is never noise."""
ALIKE = 0.12
"""Correlation of neighbours below which sound is noise; speech has 0.3 or more."""
SAME = 0.1
"""Difference of the bytes' distributions below which low bytes are no low bytes: measured on speech at least 0.18, on
bytes of one-byte encodings at most 0.1, on parts of longer samples 0.04."""
SILENT = 0.02
"""Ratio below which every second sample belongs to a silent channel."""
UNEVEN = 0.2
"""Ratio of steps below which samples come in pairs."""
PAIRS = "the samples come in pairs, as if two channels were sent as one: check 'channels' and 'encoding'"
NOISE = "the bytes do not look like this encoding: check 'encoding', and that messages begin on whole samples"

_FILES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"OggS", "Ogg"),
    (0, b"fLaC", "FLAC"),
    (0, b"ID3", "MP3"),
    (0, b"\x1aE\xdf\xa3", "WebM"),
    (4, b"ftyp", "MP4"),
    (0, b"FORM", "AIFF"),
)
Samples: TypeAlias = npt.NDArray[np.float32]
Told: TypeAlias = tuple[str, str]
"""Code and message of a warning."""


class Look:
    """Looks at the first audio of one stream."""

    __slots__ = ("_bytes", "_doubt", "_doubted", "_looked", "_odd", "_started", "done")

    def __init__(self) -> None:
        self.done = False
        """Nothing more will be told; the look can be dropped."""
        self._bytes = bytearray()
        self._odd = 0
        self._started = False
        self._looked = 0
        self._doubt: str | None = None
        self._doubted = 0

    def at(self, data: bytes, options: Options) -> list[Told]:
        """Look at the next bytes of the stream.

        Returns:
            Warnings, mostly none.

        Raises:
            UnsupportedMedia: a compressed file.
        """
        start = 0 if self._bytes else self._odd  # a block begins on a whole sample
        self._bytes += data[start : start + 2 * BLOCK_SAMPLES - len(self._bytes)]
        self._odd ^= len(data) & 1
        told: list[Told] = []
        if not self._started:
            if len(self._bytes) < HEAD_BYTES:
                return told
            self._started = True
            told = _file(bytes(self._bytes[:HEAD_BYTES]), options)
            if options.encoding != "pcm_s16le" or options.channels != 1:
                self.done = True
                return told
        if len(self._bytes) == 2 * BLOCK_SAMPLES:
            told += self._block(np.frombuffer(bytes(self._bytes), "<i2").astype(np.float32))
            self._bytes.clear()
            self.done = self.done or self._looked >= MOST_BLOCKS
        return told

    def _block(self, samples: Samples) -> list[Told]:
        self._looked += 1
        doubt = _doubt(samples)
        if doubt is None:
            return []
        self._doubted = self._doubted + 1 if doubt == self._doubt else 1
        self._doubt = doubt
        if self._doubted < LOUD_BLOCKS:
            return []
        self.done = True
        return [("suspect_audio", doubt)] if doubt else []


def _file(head: bytes, options: Options) -> list[Told]:
    for at, magic, name in _FILES:
        if head[at:].startswith(magic):
            raise UnsupportedMedia(
                f"the audio is a {name} file, and this server takes bare samples",
                hint="decode it first, and send its samples as one of the encodings in docs/protocol.md",
            )
    if head[:4] not in (b"RIFF", b"RF64") or head[8:12] != b"WAVE":
        return []
    said = "the audio begins with a WAV header, which was heard as a click; send the samples behind it"
    if head[12:16] == b"fmt ":
        channels, rate = struct.unpack_from("<HI", head, 22)
        if (channels, rate) != (options.channels, options.sample_rate):
            said += f"; it says {rate} Hz and {channels} channels, but the options say "
            said += f"{options.sample_rate} Hz and {options.channels}"
    return [("wav_header", said)]


def _doubt(samples: Samples) -> str | None:
    """What is wrong with a block; empty when it looks right, ``None`` when it is too quiet to say."""
    centred = samples - samples.mean()
    energy = float(np.dot(centred, centred))
    level = (energy / len(centred)) ** 0.5
    if level < LOUD:
        return None
    if _ratio(np.abs(samples)) < SILENT:
        return PAIRS
    if level > VERY_LOUD and abs(float(np.dot(centred[1:], centred[:-1]))) < ALIKE * energy:
        return NOISE
    pairs = samples.astype("<i2").view(np.uint8).reshape(-1, 2) >> 3
    low, high = (np.bincount(pairs[:, half], minlength=32) for half in (0, 1))
    if float(np.abs(low - high).sum()) < SAME * 2 * len(samples):
        return NOISE
    return PAIRS if _ratio(np.abs(np.diff(samples))) < UNEVEN else ""


def _ratio(sizes: Samples) -> float:
    """The smaller to the larger: the means of every second value, and of those between."""
    even, odd = float(sizes[::2].mean()), float(sizes[1::2].mean())
    return min(even, odd) / max(even, odd)
