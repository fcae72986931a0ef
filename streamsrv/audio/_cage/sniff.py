"""What kind of container bytes are, told from their beginning alone: names and content types lie."""

from __future__ import annotations

from typing import Final

HEAD_BYTES: Final = 64
"""Bytes that are enough for every kind; with 12 all but Matroska's two names can be told."""
_MP4_BOXES: Final = frozenset({b"ftyp", b"moov", b"mdat", b"wide"})


def sniff(head: bytes) -> str | None:
    """Name of the container that begins with ``head``, or ``None`` when it is none that is taken here.

    Args:
        head: the first ``HEAD_BYTES``, or all there is.

    Returns:
        ``wav``, ``aiff``, ``flac``, ``ogg``, ``mp3``, ``aac``, ``amr``, ``mp4`` (M4A, MOV and 3GP are the same),
        ``webm``, ``mkv`` or ``None``.
    """
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[:4] == b"fLaC":
        return "flac"
    if head[:4] == b"OggS":
        return "ogg"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "mkv" if b"matroska" in head[:HEAD_BYTES] else "webm"
    if head[4:8] in _MP4_BOXES:
        return "mp4"
    if head[:6] == b"#!AMR\n" or head[:9] == b"#!AMR-WB\n":
        return "amr"
    return "mp3" if head[:3] == b"ID3" else _framed(head)


def _framed(head: bytes) -> str | None:
    """MPEG audio and ADTS have no header, only frames that begin with eleven or twelve ones."""
    if len(head) < 4 or head[0] != 0xFF:
        return None
    if head[1] & 0xF6 == 0xF0:
        return "aac" if (head[2] >> 2) & 0x0F < 13 else None
    version, layer, bits, rate = (head[1] >> 3) & 3, (head[1] >> 1) & 3, head[2] >> 4, (head[2] >> 2) & 3
    legal = head[1] & 0xE0 == 0xE0 and version != 1 and layer in (1, 2) and bits not in (0, 15) and rate != 3
    return "mp3" if legal else None
