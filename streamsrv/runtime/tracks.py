"""Recordings as files: one FLAC file per epoch and channel, and the whole channel made of them.

A file holds 16 000 Hz samples, mono, from the position in its comment on.  One that a crash leaves behind is readable
up to its last second: while it grows, its header tells what was written so far.  Everything here blocks.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import soundfile

from streamsrv.facts import RATE_HZ, Position

SYNC_S = 10
"""Audio after which the file is brought to the disk for good."""
BLOCK = 4_096
"""Samples of a FLAC frame; the encoder holds back at most one frame and one sample."""
CHUNK = 60 * RATE_HZ
"""Samples copied, or silence made, at once."""

FAULTS = (OSError, soundfile.LibsndfileError)
"""What a disk, or a damaged file, may answer."""


class Piece(NamedTuple):
    """Audio, and samples of silence before it."""

    silence: int
    samples: bytes


class Track:
    """One channel of one epoch; its ``write`` and ``finish`` belong to the recorder's thread."""

    def __init__(self, path: Path, begins: Position, most: int) -> None:
        self.path = path
        self._begins = begins
        self._left = most
        self._written = 0
        self._synced = 0
        self._fd = -1
        self._file: soundfile.SoundFile | None = None

    def write(self, piece: Piece) -> bool:
        """Append; false when the file has all it may.

        Raises:
            OSError, soundfile.LibsndfileError: the disk does not take it.
        """
        if self._file is None:
            self._file = self._open()
        for size in _chunks(min(piece.silence, self._left)):
            self._append(self._file, bytes(2 * size))
        self._append(self._file, piece.samples[: 2 * self._left])
        self._tell_length()
        if self._written - self._synced >= SYNC_S * RATE_HZ:
            self._synced = self._written
            os.fdatasync(self._fd)
        return self._left > 0

    def finish(self) -> None:
        """Complete the file; safe to call twice.

        Raises:
            OSError, soundfile.LibsndfileError: as ``write``.
        """
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            finally:
                os.close(self._fd)

    def _open(self) -> soundfile.SoundFile:
        for folder in (self.path.parent.parent, self.path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            file = soundfile.SoundFile(
                self._fd, "w", samplerate=RATE_HZ, channels=1, format="FLAC", subtype="PCM_16", closefd=False
            )
            file.comment = f"position={self._begins}"
        except BaseException:
            os.close(self._fd)
            raise
        return file

    def _append(self, file: soundfile.SoundFile, samples: bytes) -> None:
        file.buffer_write(samples, dtype="int16")
        self._written += len(samples) // 2
        self._left -= len(samples) // 2

    def _tell_length(self) -> None:
        """The encoder writes the length into the header when it closes; a crash must not need that."""
        whole = max(0, (self._written - 1) // BLOCK * BLOCK)
        os.pwrite(self._fd, struct.pack(">Q", RATE_HZ << 44 | 15 << 36 | whole), 18)


class Part(NamedTuple):
    """A finished file, or one a crash left behind."""

    path: Path
    begins: Position
    ends: Position


def look(path: Path) -> Part | None:
    """What a file holds; ``None`` when it holds nothing that can be read."""
    try:
        with soundfile.SoundFile(path) as file:
            name, _, position = file.comment.partition("=")
            if name != "position" or not position.isdecimal() or file.samplerate != RATE_HZ:
                return None
            return Part(path, int(position), int(position) + file.frames)
    except FAULTS:
        return None


def join(parts: Sequence[Part], path: Path) -> None:
    """Write one file from position 0 on.

    What an earlier part holds counts: a client that resumes may send silence for what it need not send again.  Where no
    part holds anything there is silence.

    Args:
        parts: by epoch.

    Raises:
        OSError, soundfile.LibsndfileError: it could not be written; what is there is removed.
    """
    growing = path.with_suffix(".part")
    try:
        track = Track(growing, 0, max(part.ends for part in parts))
        at = 0
        for part in parts:
            for piece in _rest(part, at):
                track.write(piece)
                at += piece.silence + len(piece.samples) // 2
        track.finish()
        growing.replace(path)
    finally:
        growing.unlink(missing_ok=True)


def _rest(part: Part, at: Position) -> Iterator[Piece]:
    """The samples of a part from a position on, behind the silence that leads to it."""
    if part.ends <= at:
        return
    with soundfile.SoundFile(part.path) as file:
        file.seek(max(0, at - part.begins))
        silence = max(0, part.begins - at)
        while samples := bytes(file.buffer_read(min(CHUNK, file.frames - file.tell()), dtype="int16")):
            yield Piece(silence, samples)
            silence = 0


def _chunks(samples: int) -> list[int]:
    """A long silence in pieces that bound the memory it takes."""
    whole, rest = divmod(samples, CHUNK)
    return [CHUNK] * whole + [rest] * bool(rest)
