"""Subtitles: at most two rows of 42 columns and seven seconds each, where the words' times allow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from streamsrv.stores.transcript.document import Document, Line
from streamsrv.stores.transcript.pieces import Piece, pieces, plain, width

MAX_COLUMNS = 42
MAX_ROWS = 2
LONGEST_MS = 7_000
MAX_LABEL_COLUMNS = 20
"""A longer label is shortened, so that room for words is left in its row."""


class Cue(NamedTuple):
    """One subtitle; ``stop_ms > start_ms``, in ms since the interview's zero."""

    start_ms: int
    stop_ms: int
    rows: tuple[str, ...]


def speakers_differ(document: Document) -> bool:
    """Whether it must be said who speaks."""
    return len({line.label for line in document.segments if plain(line.text)}) > 1


def cues(document: Document) -> list[Cue]:
    """All subtitles, by start.  Those of one channel never overlap; two people may speak at once."""
    differ = speakers_differ(document)
    ends: dict[tuple[str, int], int] = {}
    found: list[Cue] = []
    for line in document.segments:
        track = (line.stream, line.channel)
        for cue in _cues_of(line, _prefix(line) if differ else ""):
            late = max(0, ends.get(track, 0) - cue.start_ms)  # never before zero either
            moved = cue._replace(start_ms=cue.start_ms + late, stop_ms=cue.stop_ms + late)
            ends[track] = moved.stop_ms
            found.append(moved)
    return sorted(found, key=lambda cue: (cue.start_ms, cue.stop_ms))


def _prefix(line: Line) -> str:
    label = plain(line.label)
    while width(label) > MAX_LABEL_COLUMNS:
        label = label[:-2] + "…"
    return f"{label}: " if label else ""


def _cues_of(line: Line, prefix: str) -> list[Cue]:
    found: list[Cue] = []
    held: list[Piece] = []
    for piece in pieces(line, MAX_COLUMNS - width(prefix)):
        if held and not _fits([*held, piece], prefix):
            found.append(_cue(held, prefix))
            held = []
        held.append(piece)
    if held:
        found.append(_cue(held, prefix))
    return found


def _fits(held: Sequence[Piece], prefix: str) -> bool:
    return held[-1].stop_ms - held[0].start_ms <= LONGEST_MS and len(_rows(held, prefix)) <= MAX_ROWS


def _cue(held: Sequence[Piece], prefix: str) -> Cue:
    start_ms = held[0].start_ms
    stop_ms = min(max(start_ms + 1, held[-1].stop_ms), start_ms + LONGEST_MS)
    return Cue(start_ms, stop_ms, _rows(held, prefix))


def _rows(held: Sequence[Piece], prefix: str) -> tuple[str, ...]:
    """Filled from the first row on; the prefix stands in the first."""
    rows = [prefix + held[0].text]
    for piece in held[1:]:
        longer = f"{rows[-1]}{'' if piece.glued else ' '}{piece.text}"
        if width(longer) <= MAX_COLUMNS:
            rows[-1] = longer
        else:
            rows.append(piece.text)
    return tuple(rows)
