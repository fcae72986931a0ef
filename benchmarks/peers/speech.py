"""What the speakers of the race say: speech whose word ends are known, for models that hear it.

A speaker talks and listens by turns, as in an interview, and each turn is a call of its own: no server has to hold more
than the models of this race were made for (the tone model reads a window up to its first silence, the digits model was
trained on 3 to 8 words), or to cut where they would not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal, TypeAlias

import msgspec
import numpy as np
import soundfile

from benchmarks.script import Spoken
from benchmarks.spoken import DIGITS, known_digits
from benchmarks.tape import NOISE, RATE_HZ, Samples
from tests.models import tone

Kind: TypeAlias = Literal["digits", "tones"]
LEAD_MS = 500
"""Of a quiet room before the first human word; tones begin at once, where the model expects them."""
TONE_WORDS = 24
"""Of a turn, 12 s: less than the 15 s after which servers begin to forget what they heard."""
TONES = ("two", "three", "four", "five", "seven", "eight", "red", "green", "blue", "white")
"""Tones a voice detector takes for a voice; it is deaf to the others."""
LISTEN_MS = 10_500
"""Between two turns: longer than any limit, so that the last words of a turn may be late, too."""
STAGGER_MS = 1_000
"""Those who talk when the race begins do so within so long."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What one connection carries."""

    at_ms: int
    """When it begins, on its speaker's timeline."""
    samples: bytes
    """int16, mono, 16 kHz."""
    truth: tuple[Spoken, ...]
    """Each word and its end, ms of the call."""

    @property
    def stop_ms(self) -> int:
        """When its last sample is spoken, on its speaker's timeline."""
        return self.at_ms + len(self.samples) // 2 * 1000 // RATE_HZ


def speaker(kind: Kind, number: int, seconds: float, phase: float) -> tuple[Call, ...]:
    """The calls of one speaker in so many seconds.

    Args:
        number: another one says other words.
        phase: where in the cycle of talking and listening the speaker is at the beginning, 0.0 to 1.0.
    """
    chance = random.Random(number)
    end_ms = round(1000 * seconds)
    calls: list[Call] = []
    at_ms = 0
    for call in _turns(kind, chance, phase):
        at_ms += call.at_ms
        placed = _until(msgspec.structs.replace(call, at_ms=at_ms), end_ms)
        if placed is None:
            break
        calls.append(placed)
        at_ms = placed.stop_ms + LISTEN_MS
    return tuple(calls)


def _turns(kind: Kind, chance: random.Random, phase: float) -> Iterator[Call]:
    """Turn after turn without end; ``at_ms`` of the first is when it begins, of the others 0."""
    if kind == "digits":
        first = _digits(chance)
        yield msgspec.structs.replace(first, at_ms=round(phase * (first.stop_ms + LISTEN_MS)))
        while True:
            yield _digits(chance)
    talk_ms = round(1000 * TONE_WORDS * tone.SLOT_S)
    gone_ms = phase * (talk_ms + LISTEN_MS)
    left = TONE_WORDS - int(gone_ms / 1000 / tone.SLOT_S)
    if left > 0:
        yield _tones(chance, left, at_ms=chance.randrange(STAGGER_MS))
    else:
        yield _tones(chance, TONE_WORDS, at_ms=round(talk_ms + LISTEN_MS - gone_ms))
    while True:
        yield _tones(chance, TONE_WORDS)


def _until(call: Call, end_ms: int) -> Call | None:
    """What of a call is over by then; ``None`` when no word is."""
    truth = tuple(word for word in call.truth if call.at_ms + word.stop_ms <= end_ms)
    if not truth:
        return None
    if len(truth) == len(call.truth):
        return call
    count = truth[-1].stop_ms * RATE_HZ // 1000
    return msgspec.structs.replace(call, truth=truth, samples=call.samples[: 2 * count])


def _digits(chance: random.Random) -> Call:
    sample = chance.choice(known_digits())
    voice: Samples = soundfile.read(DIGITS / "samples" / sample.file, dtype="int16")[0]
    ends = zip(sample.words, sample.word_end_s, strict=True)
    truth = tuple(Spoken(text=word, stop_ms=LEAD_MS + round(1000 * end_s)) for word, end_s in ends)
    return Call(at_ms=0, samples=np.concatenate([_room(LEAD_MS), voice]).astype("<i2").tobytes(), truth=truth)


def _tones(chance: random.Random, count: int, *, at_ms: int = 0) -> Call:
    words = chance.choices(TONES, k=count)
    ends = (round(1000 * (n * tone.SLOT_S + tone.TONE_S)) for n in range(count))
    truth = tuple(Spoken(text=word, stop_ms=stop_ms) for word, stop_ms in zip(words, ends, strict=True))
    return Call(at_ms=at_ms, samples=tone.sound(words).astype("<i2").tobytes(), truth=truth)


def _room(ms: int) -> Samples:
    """A quiet room."""
    return np.random.default_rng(5).normal(0.0, NOISE, RATE_HZ * ms // 1000).astype(np.int16)
