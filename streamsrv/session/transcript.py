"""From words to text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from streamsrv.facts import Word


def join(words: Iterable[Word]) -> str:
    """The words as one text, NFC; a space before each word that is not glued."""
    pieces: list[str] = []
    for word in words:
        if pieces and not word.glued:
            pieces.append(" ")
        pieces.append(word.text)
    return unicodedata.normalize("NFC", "".join(pieces))


def stable_chars(stable: Iterable[Word], text: str) -> int:
    """Code points of ``text`` that are promised: the length of the stable words' text.

    A glued word that begins with a combining mark would change the last promised character; the promise then ends
    before that character.
    """
    promised = join(stable)
    if text.startswith(promised):
        return len(promised)
    same = 0
    for ours, theirs in zip(promised, text, strict=False):
        if ours != theirs:
            break
        same += 1
    return same
