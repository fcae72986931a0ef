"""Tokens -> words with times and confidences: measured by alignment, or guessed."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from streamsrv.audio.mel import HOP
from streamsrv.engines._whisper.model import Aligned, Tongue
from streamsrv.facts import RATE_HZ, Position, Word

Mask: TypeAlias = npt.NDArray[np.bool_]

SAMPLES_A_STEP: Final = 320
"""An encoder frame is 20 ms."""
LATEST: Final = RATE_HZ // 2
"""The end of a word moves by at most half a second, except the last one's."""
BROKEN: Final = "\ufffd"
"""Part of a character: the answer was cut within one."""


class Piece(NamedTuple):
    """A word and the tokens it is made of."""

    text: str
    glued: bool
    tokens: int


def pieces(tongue: Tongue, prefix: Sequence[Word], spelled: Sequence[Sequence[int]], rest: list[int]) -> list[Piece]:
    """The words of an answer: the prefix as it was given, then what the tokens after it say.

    Returns:
        Pieces in order; together they hold every token, a piece without text is no word.
    """
    found = [Piece(word.text, word.glued, len(ids)) for word, ids in zip(prefix, spelled, strict=True)]
    if not rest:
        return found
    texts, tokens = tongue.split_to_word_tokens([*rest, tongue.eot])
    for text, ids in zip(texts[:-1], tokens[:-1], strict=True):
        word = unicodedata.normalize("NFC", text).strip()
        glued = bool(found) and not text[:1].isspace()
        found.append(Piece("" if BROKEN in word else word, glued, len(ids)))
    return found


def measured(found: Sequence[Piece], aligned: Aligned, samples: int) -> list[Word]:
    """Words with the times and probabilities of an alignment.

    Args:
        found: all tokens that were aligned.
        samples: length of the window; no word ends after it.
    """
    bounds = _token_times(aligned, sum(piece.tokens for piece in found))
    chances = aligned.text_token_probs
    words, at = [], 0
    for piece in found:
        start, stop = min(bounds[at], samples), min(bounds[at + piece.tokens], samples)
        chance = sum(chances[at : at + piece.tokens]) / max(1, piece.tokens)
        at += piece.tokens
        if piece.text:
            words.append(Word(text=piece.text, start=start, stop=stop, confidence=_share(chance), glued=piece.glued))
    return words


def estimated(found: Sequence[Piece], speech: tuple[Position, Position], confidence: float) -> list[Word]:
    """Words spread over the speech by the length of their texts, all with the same confidence."""
    shown = [piece for piece in found if piece.text]
    start, stop = speech
    total = sum(len(piece.text) + 1 for piece in shown)
    words, done = [], 0
    for piece in shown:
        begin = start + (stop - start) * done // total
        done += len(piece.text) + 1
        end = start + (stop - start) * done // total
        words.append(
            Word(
                text=piece.text,
                start=begin,
                stop=end,
                confidence=_share(confidence),
                estimated=True,
                glued=piece.glued,
            )
        )
    return words


def settled(words: Sequence[Word], loud: Mask, *, whole: bool) -> list[Word]:
    """Words that neither end in the middle of a sound nor begin in silence.

    Alignment follows the model's attention, which often leaves a word before it is over.  An end inside a sound moves
    to the end of that sound, but not past the middle of the next word: in fluent speech it stays.

    Args:
        loud: which frames of the window sound.
        whole: nothing follows; the last word ends with the last sound, if that is near.
    """
    done: list[Word] = []
    for place, word in enumerate(words):
        last = place + 1 == len(words)
        limit = len(loud) * HOP if last else word.stop + min(LATEST, (words[place + 1].stop - word.stop) // 2)
        stop = _next(loud, word.stop, limit, sounding=False)
        start = max(word.start, done[-1].stop if done else 0)
        start = min(_next(loud, start, stop, sounding=True), stop)
        done.append(msgspec.structs.replace(word, start=start, stop=stop))
    if done and whole and loud.any():
        end = (int(np.flatnonzero(loud)[-1]) + 1) * HOP
        if done[-1].stop < end <= done[-1].stop + 2 * LATEST:
            done[-1] = msgspec.structs.replace(done[-1], stop=end)
    return done


def moved(words: Sequence[Word], by: Position) -> list[Word]:
    """The same words ``by`` samples later."""
    return [msgspec.structs.replace(word, start=word.start + by, stop=word.stop + by) for word in words]


def _next(loud: Mask, place: Position, limit: Position, *, sounding: bool) -> Position:
    """The first place from here that sounds, or is quiet; ``place`` itself when there is none before ``limit``."""
    found = np.flatnonzero(loud[place // HOP : limit // HOP] == sounding)
    return max(place, (place // HOP + int(found[0])) * HOP) if len(found) else place


def _token_times(aligned: Aligned, tokens: int) -> list[Position]:
    """Where each token begins, and where the last one ends."""
    times = [0] * (tokens + 1)
    reached = -1
    for token, step in aligned.alignments:
        if reached < token <= tokens:
            times[reached + 1 : token + 1] = [step * SAMPLES_A_STEP] * (token - reached)
            reached = token
    last = aligned.alignments[-1][1] + 1 if aligned.alignments else 0
    times[reached + 1 :] = [last * SAMPLES_A_STEP] * (tokens - reached)
    return times


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))
