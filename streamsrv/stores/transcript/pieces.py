"""The text of a line, cut into timed pieces that a subtitle may be broken between."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from streamsrv.stores.transcript.document import Line, LineWord


class Piece(NamedTuple):
    """What is never broken, and when it was said."""

    text: str
    start_ms: int
    stop_ms: int
    glued: bool
    """Follows the piece before without a space."""


def width(text: str) -> int:
    """Columns on a screen: East Asian wide characters take two, combining ones none."""
    return sum(map(_columns, text))


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def plain(text: str) -> str:
    """One line: runs of white space and control characters become one space each."""
    return " ".join("".join(" " if unicodedata.category(char) == "Cc" else char for char in text).split())


def pieces(line: Line, widest: int) -> list[Piece]:
    """The words of a line with their times; without usable words, its text with times in proportion.

    Args:
        widest: columns of the widest piece; what is wider is cut.
    """
    text = plain(line.text)
    found = list(_attached(line.words))
    if not found or _joined(found) != text:
        found = _in_proportion(text, line.start_ms, line.stop_ms)
    return [part for piece in found for part in _cut(piece, widest)]


def _attached(words: Sequence[LineWord]) -> Iterator[Piece]:
    """Punctuation stays with the word before it."""
    held: Piece | None = None
    for word in words:
        text = plain(word.text)
        if not text:
            continue
        if held is not None and word.glued and not any(map(str.isalnum, text)):
            held = held._replace(text=held.text + text, stop_ms=max(held.stop_ms, word.stop_ms))
            continue
        if held is not None:
            yield held
        held = Piece(text, word.start_ms, word.stop_ms, word.glued)
    if held is not None:
        yield held


def _joined(found: Sequence[Piece]) -> str:
    return "".join(piece.text if piece.glued else f" {piece.text}" for piece in found).strip()


def _in_proportion(text: str, start_ms: int, stop_ms: int) -> list[Piece]:
    found = []
    at = 0
    for word in text.split():
        begin, at = at, at + len(word) + 1
        found.append(Piece(word, _share(start_ms, stop_ms, begin, text), _share(start_ms, stop_ms, at, text), False))
    return found


def _share(start_ms: int, stop_ms: int, chars: int, text: str) -> int:
    return start_ms + (stop_ms - start_ms) * min(chars, len(text)) // max(1, len(text))


def _cut(piece: Piece, widest: int) -> Iterator[Piece]:
    """Pieces no wider than allowed; a combining character stays with the one before."""
    begin = columns = 0
    for index, char in enumerate(piece.text):
        if columns + _columns(char) > widest:
            yield _part(piece, begin, index)
            begin, columns = index, 0
        columns += _columns(char)
    yield _part(piece, begin, len(piece.text))


def _part(piece: Piece, begin: int, end: int) -> Piece:
    return Piece(
        piece.text[begin:end],
        _share(piece.start_ms, piece.stop_ms, begin, piece.text),
        _share(piece.start_ms, piece.stop_ms, end, piece.text),
        piece.glued or begin > 0,
    )
