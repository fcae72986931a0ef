"""Speech whose words and their ends are known by construction, for engines that hear it exactly or nearly so.

Tones are what the hand-made Whisper of the tests hears: one word each half second.  Digits are recordings of people,
put together with pauses; where each word ends was measured in the recordings once (``index.json`` beside them).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import soundfile

from benchmarks.script import Script, Spoken
from benchmarks.tape import RATE_HZ, Samples
from tests.models import tone

DIGITS = Path(tone.__file__).parent / "digits"
"""A small Whisper that hears spoken digits, and recordings of them."""
WONDERED_AT = frozenset({"warning suspect_audio"})
"""The server says of pure tones, rightly, that they are hardly speech."""
NOISE = 8.0
"""Standard deviation of the room, steps of int16."""
TURN_WORDS = (4, 16)
"""Words somebody says between two pauses, when there are pauses."""
LEAST_PAUSE_S = 0.7
"""A pause that ends a segment for sure: longer than the detector's hang-over."""


class _Sample(msgspec.Struct, frozen=True):
    file: str
    words: list[str]
    word_end_s: list[float]


def tones(seed: int, seconds: float, *, share: float = 1.0) -> Script:
    """Random words as tones.

    Args:
        seconds: about as long, at least one turn.
        share: of the time that is spoken; 1.0: without a pause.
    """
    chance = np.random.default_rng(seed)
    script = _Put(name=f"tones-{seed}")
    script.rest(0.3)
    while script.seconds < seconds:
        many = round((seconds - script.seconds) / tone.SLOT_S) if share >= 1.0 else int(chance.integers(*TURN_WORDS))
        script.tones(max(1, many), chance)
        if script.seconds < seconds:
            script.rest(max(LEAST_PAUSE_S, many * tone.SLOT_S * (1 - share) / share))
    return script.over(chance, WONDERED_AT)


def turns(seed: int, stretches: Sequence[tuple[float, float]]) -> Script:
    """Tones whose share of the time changes: ``(seconds, share)`` for each stretch, with pauses at any share."""
    chance = np.random.default_rng(seed)
    script = _Put(name=f"turns-{seed}")
    script.rest(0.3)
    end_s = 0.0
    for seconds, share in stretches:
        end_s += seconds
        while script.seconds < end_s:
            many = int(chance.integers(*TURN_WORDS))
            script.tones(many, chance)
            script.rest(max(LEAST_PAUSE_S, many * tone.SLOT_S * (1 - share) / share))
    return script.over(chance, WONDERED_AT)


def digits(seed: int, seconds: float, *, folder: Path = DIGITS, pause_s: float = 1.0) -> Script:
    """Digits as people said them, recordings in random order, about so many seconds."""
    chance = np.random.default_rng(seed)
    samples = known_digits(folder)
    script = _Put(name=f"digits-{seed}")
    script.rest(0.5)
    while script.seconds < seconds:
        chosen = samples[int(chance.integers(len(samples)))]
        sound, rate = soundfile.read(folder / "samples" / chosen.file, dtype="int16")
        if rate != RATE_HZ:
            raise ValueError(f"{chosen.file} has {rate} samples a second; {RATE_HZ} are wanted")
        script.say(sound, chosen.words, chosen.word_end_s)
        if script.seconds < seconds:
            script.rest(pause_s)
    return script.over(chance)


def known_digits(folder: Path = DIGITS) -> list[_Sample]:
    """The recordings of digits that are there, with their words."""
    known = msgspec.json.decode((folder / "samples" / "index.json").read_bytes(), type=list[_Sample])
    return [sample for sample in known if (folder / "samples" / sample.file).exists()]


class _Put:
    """A script that is being put together."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._parts: list[Samples] = []
        self._count = 0
        self._truth: list[Spoken] = []
        self._plain = 0

    @property
    def seconds(self) -> float:
        return self._count / RATE_HZ

    def rest(self, seconds: float) -> None:
        self._add(np.zeros(round(seconds * RATE_HZ), np.int16))

    def say(self, sound: Samples, words: Sequence[str], ends_s: Sequence[float]) -> None:
        self._plain = self._count
        at_s = self.seconds
        self._truth += [
            Spoken(text=word, stop_ms=round(1000 * (at_s + end_s))) for word, end_s in zip(words, ends_s, strict=True)
        ]
        self._add(sound)

    def tones(self, many: int, chance: np.random.Generator) -> None:
        """Random words, one each half second."""
        words = [str(word) for word in chance.choice(tone.WORDS, many)]
        self.say(tone.sound(words), words, [n * tone.SLOT_S + tone.TONE_S for n in range(many)])

    def over(self, chance: np.random.Generator, expected: frozenset[str] = frozenset()) -> Script:
        """What was said last is flushed at its last sample."""
        sound = np.concatenate(self._parts).astype(np.float64) + chance.normal(0.0, NOISE, self._count)
        samples = np.clip(np.round(sound), -32_768, 32_767).astype("<i2")
        return Script(
            name=self._name,
            rate_hz=RATE_HZ,
            samples=samples.tobytes(),
            plain_ms=self._plain * 1000 // RATE_HZ,
            truth=tuple(self._truth),
            expected=expected,
        )

    def _add(self, sound: Samples) -> None:
        self._parts.append(sound)
        self._count += len(sound)
