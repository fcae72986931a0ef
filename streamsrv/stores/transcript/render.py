"""A transcript as text: JSON, plain text, SubRip and WebVTT.  Segments without words are only in JSON."""

from __future__ import annotations

import msgspec

from streamsrv.stores.transcript.cues import cues, speakers_differ
from streamsrv.stores.transcript.document import Document
from streamsrv.stores.transcript.pieces import plain


def to_json(document: Document) -> str:
    """The document with all its fields; times as in ``Line``."""
    return msgspec.json.encode(document).decode()


def to_txt(document: Document) -> str:
    """One line per segment; with who speaks when more than one does."""
    differ = speakers_differ(document)
    lines = []
    for line in document.segments:
        if text := plain(line.text):
            label = plain(line.label)
            lines.append(f"{label}: {text}\n" if differ and label else f"{text}\n")
    return "".join(lines)


def to_srt(document: Document, offset_ms: int = 0) -> str:
    """SubRip, with all times ``offset_ms`` later.

    It knows no escapes: an arrow in the text gets a space, so that it is no time line.
    """
    blocks = []
    for number, cue in enumerate(cues(document), start=1):
        text = "\n".join(cue.rows).replace("-->", "-- >")
        start, stop = (_clock(offset_ms + ms, ",") for ms in (cue.start_ms, cue.stop_ms))
        blocks.append(f"{number}\n{start} --> {stop}\n{text}\n")
    return "\n".join(blocks)


def to_vtt(document: Document, offset_ms: int = 0) -> str:
    """WebVTT, with all times ``offset_ms`` later; ``&``, ``<`` and ``>`` are escaped."""
    blocks = ["WEBVTT\n"]
    for cue in cues(document):
        text = "\n".join(cue.rows).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        start, stop = (_clock(offset_ms + ms, ".") for ms in (cue.start_ms, cue.stop_ms))
        blocks.append(f"{start} --> {stop}\n{text}\n")
    return "\n".join(blocks)


def _clock(ms: int, point: str) -> str:
    """``HH:MM:SS.mmm``; hours may have more digits."""
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{ms:03}"
