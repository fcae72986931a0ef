"""Against words nobody said: Whisper invents some over silence, noise and music, and loops.

Three kinds of evidence: how the sound moves (``listen``), how sure the model is, and whether a text repeats itself.
None alone suffices; a sound unlike speech does not silence the model, it asks for surer words.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from streamsrv.audio.mel import HOP, Floats
from streamsrv.facts import RATE_HZ, Position, Word

Mask: TypeAlias = npt.NDArray[np.bool_]

SILENCE: Final = -9.5
"""log10 of the largest mel energy under which a window is digital silence; 16-bit speech lies above -6."""
ACTIVE: Final = 3.0 / 4
"""Frames within three decades of the loudest are looked at; features count four decades as one."""
AUDIBLE: Final = 4.0 / 4
"""What lies further below the loudest frame at a window's beginning is quiet: 40 dB, less than any consonant."""
LEAD_FRAMES: Final = 15
"""Quiet that stays before the first sound: 150 ms."""
DECADES: Final = np.float32(4 * math.log(10))
"""From features to the natural logarithm of the energy."""
DEPTH: Final = 6.0 / 4
"""Bands further below the loudest say nothing."""
CLICK_FRAMES: Final = 6
"""A sound that is never loud for 60 ms is no syllable: keys, steps, a cup."""
LEAST_FRAMES: Final = 30
"""Active frames from which the movement of a sound can be told: 0.3 s."""
LOOKED_AT: Final = 100
"""Loud frames of a window that are looked at, or up to twice as many: medians of more say the same."""
LEAST_BANDS: Final = 64
"""Bands that are looked at, or up to twice as many."""
NEAR: Final = 2
MIDDLE: Final = 5
FAR: Final = 20
"""Distances in frames: 20, 50 and 200 ms.  Speech changes its spectrum at the pace of sounds and syllables, so it has
changed more after 200 ms than after 20 (measured: 1.6 to 2.9 times, over eleven recordings in six languages and twelve
of digits); hiss, rain and keys have changed as much at once (0.95 to 1.05); hum and held notes not at all."""
NOISE_RATIO: Final = 1.15
HELD: Final = 0.25 / 4
"""Change within 50 ms, in features, under which a spectrum is held: hum and music change by 0 to 0.19 decades, speech
by 0.44 and more."""
BESIDE: Final = 3
PURE: Final = 0.97
"""Share of the energy in one place of the spectrum from which a held sound is a pure tone.  It is left to the model: it
is neither hum nor music, a beep is soon over, and models made for tests speak in tones."""
SURE: Final = 0.95
VERY_SURE: Final = 0.99
"""Mean probability of the words that outweighs a sound like noise, and one of held notes."""
CUT_FRAMES: Final = 5
CUT_SURE: Final = 0.5
"""A word at the window's edge, with sound in the last 50 ms before it, is half a word and needs this probability."""
STACKED: Final = RATE_HZ * 60 // 1000
"""A repeated word shorter than this was not said again."""
REPEATS: Final = 3
"""Times a run of tokens stands at the end of an answer that was cut for its length, before it is a loop."""


class Sound(NamedTuple):
    """What can be told about a window without the model."""

    silent: bool
    surely: float
    """Mean probability its words need; 0 for what moves as speech does."""
    loud: Mask
    """Which frames are within three decades of the loudest."""
    skipped: int = 0
    """Frames of quiet taken from the beginning; ``loud`` begins after them."""

    @property
    def speech(self) -> tuple[Position, Position]:
        """From the first loud frame to the last, in samples from the window's start."""
        places = np.flatnonzero(self.loud)
        return int(places[0]) * HOP, (int(places[-1]) + 1) * HOP


def listen(features: Floats, spoken: int, peak: float) -> Sound:
    """Look at a window.

    Args:
        features: ``(bands, frames)``, scaled as for the model.
        spoken: frames that hold audio.
        peak: log10 of the largest energy.
    """
    heard = features[:, :spoken]
    if peak <= SILENCE or spoken < 1:
        return Sound(True, 1.0, np.zeros(spoken, np.bool_))
    highest = heard.max(axis=0)
    loud = highest > highest.max() - ACTIVE
    return Sound(False, _needed(heard, loud), loud)


def hastened(features: Floats, sound: Sound) -> Sound:
    """Take the quiet from the beginning of a window, but for a moment; changes ``features`` in place.

    Segments begin with a pre-roll.  A window that begins with its first sound is alike wherever it was cut, so what
    was heard in a part of it is heard again in the whole.
    """
    spoken = len(sound.loud)
    highest = features[:, :spoken].max(axis=0)
    audible = np.flatnonzero(highest > highest.max() - AUDIBLE)
    skipped = max(0, int(audible[0]) - LEAD_FRAMES)
    if skipped:
        features[:, : spoken - skipped] = features[:, skipped:spoken].copy()
        features[:, spoken - skipped : spoken] = features.min()
    return sound._replace(loud=sound.loud[skipped:], skipped=skipped)


def _needed(heard: Floats, active: Mask) -> float:
    if _longest(active) < CLICK_FRAMES:
        return SURE
    if np.count_nonzero(active) < LEAST_FRAMES or len(active) < 2 * FAR:
        return 0.0
    shape = np.maximum(heard[:: max(1, len(heard) // LEAST_BANDS)], heard.max() - DEPTH)
    near, middle, far = (_change(shape, active, lag) for lag in (NEAR, MIDDLE, FAR))
    if middle < HELD:
        return 0.0 if _purity(heard[:, _some(active)]) > PURE else VERY_SURE
    return SURE if far < NOISE_RATIO * near else 0.0


def _purity(sounding: Floats) -> float:
    """Share of the energy that lies within ``BESIDE`` bands of the loudest one; the median over frames."""
    energy = np.exp(DECADES * (sounding - sounding.max(axis=0)))
    bands = np.arange(len(energy))[:, None]
    near = np.abs(bands - sounding.argmax(axis=0)) <= BESIDE
    return float(np.median(np.einsum("bf,bf->f", energy, near) / energy.sum(axis=0)))


def _longest(active: Mask) -> int:
    """Frames of the longest run."""
    edges = np.flatnonzero(np.diff(active, prepend=False, append=False))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _some(frames: Mask) -> npt.NDArray[np.intp]:
    """Places of some of these frames, evenly chosen: all of few, ``LOOKED_AT`` or up to twice as many of more."""
    places = np.flatnonzero(frames)
    return places[:: max(1, len(places) // LOOKED_AT)]


def _change(shape: Floats, active: Mask, lag: int) -> float:
    """How much the spectrum's shape, not its loudness, has changed after ``lag`` frames; the median."""
    places = _some(active[lag:] & active[:-lag])
    if not len(places):
        return 0.0
    step = shape[:, places + lag] - shape[:, places]
    # The square of the standard deviation over bands, in half the time of numpy's own.
    variance = np.einsum("bf,bf->f", step, step) / len(step) - step.mean(axis=0) ** 2
    return math.sqrt(max(0.0, float(np.median(variance))))


def compression(text: str) -> float:
    """How much shorter a text gets by compression: over 2.4 it repeats itself."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw)) if raw else 0.0


def unlooped(tokens: Sequence[int], kept: int) -> list[int]:
    """An answer without the loop at its end: one of its rounds stays.

    Args:
        tokens: the answer.
        kept: tokens at its beginning that are not touched.
    """
    tail = list(tokens[kept:])
    for period in range(1, len(tail) // REPEATS + 1):
        rounds = 1
        while tail[-period * (rounds + 1) : len(tail) - period * rounds] == tail[-period:]:
            rounds += 1
        if rounds >= REPEATS:
            return [*tokens[:kept], *tail[: len(tail) - period * (rounds - 1)]]
    return list(tokens)


def credible(words: Sequence[Word], sound: Sound, kept: int) -> list[Word]:
    """The words that were probably said.

    Args:
        words: measured ones.
        kept: words at the beginning that are not judged.
    """
    promised, fresh = list(words[:kept]), list(words[kept:])
    if fresh and sum(word.confidence for word in fresh) / len(fresh) < sound.surely:
        return promised
    if fresh and not kept and sound.loud[:CUT_FRAMES].any() and fresh[0].confidence < CUT_SURE:
        del fresh[0]
    if fresh and sound.loud[-CUT_FRAMES:].any() and fresh[-1].confidence < CUT_SURE:
        del fresh[-1]
    for word in fresh:
        if not (promised and word.text == promised[-1].text and word.stop - word.start < STACKED):
            promised.append(word)
    return promised
