"""What the speakers of the latency benchmark say: recordings, and speech put together so that word ends are known.

Constructed speech takes phrases out of the recording the tests use and lays them out with pauses of the same room.
Where each word ends inside its phrase was marked once (forced alignment, checked against the energy of the signal), so
its end on the new timeline does not depend on what any engine says about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import soundfile

from benchmarks.tape import Samples

QUIET_MS = 1_000
"""Silence after the last word, so that the voice detector finds its end."""
FLUSHED_MS = 2_000
"""Of a recording, heard again at the end and cut off by ``flush`` in mid-speech."""
SOUNDS = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3"})


class Spoken(msgspec.Struct, frozen=True, kw_only=True):
    """A word and when it is over, in ms of the script."""

    text: str
    stop_ms: int


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """One session's audio."""

    name: str
    rate_hz: int
    samples: bytes
    """int16, mono.  When the last one is sent, ``flush`` follows at once."""
    plain_ms: int
    """What comes before the part that is flushed."""
    truth: tuple[Spoken, ...] = ()
    """Known by construction; empty for a recording."""
    text: str = ""
    """What is said before the flushed part, when somebody wrote it down."""
    expected: frozenset[str] = frozenset()
    """What a guard would find and is right: ``warning suspect_audio`` for tones, which are no speech."""

    @property
    def duration_ms(self) -> int:
        return len(self.samples) // 2 * 1000 // self.rate_hz


# --- recordings --------------------------------------------------------------------------------------------------


def recordings(place: Path) -> list[Script]:
    """One script for each recording at ``place``, a file or a folder; a text beside it has the same name.

    Raises:
        FileNotFoundError: there is none.
    """
    files = [place] if place.is_file() else sorted(f for f in place.glob("*") if f.suffix.lower() in SOUNDS)
    if not files:
        raise FileNotFoundError(f"no recording at {place}")
    return [_recording(file) for file in files]


def _recording(file: Path) -> Script:
    sound, rate = soundfile.read(file, dtype="int16", always_2d=True)
    voice: Samples = sound[:, 0]
    text = file.with_suffix(".txt")
    plain = np.concatenate([voice, _hush(rate * QUIET_MS // 1000)])
    samples = np.concatenate([plain, voice[: rate * FLUSHED_MS // 1000]])
    return Script(
        name=file.stem,
        rate_hz=rate,
        samples=samples.astype("<i2").tobytes(),
        plain_ms=len(plain) * 1000 // rate,
        text=text.read_text("utf-8") if text.exists() else "",
    )


def _hush(count: int) -> Samples:
    """A quiet room: noise at -72 dBFS."""
    return np.random.default_rng(5).normal(0.0, 8.0, count).astype(np.int16)


# --- constructed -------------------------------------------------------------------------------------------------


class _Phrase(msgspec.Struct, frozen=True):
    start_ms: int
    stop_ms: int
    words: tuple[tuple[str, int], ...]
    """Each word and its end, ms in ``jfk.flac``."""


_PHRASES = (
    _Phrase(250, 2250, (("and", 630), ("so", 970), ("my", 1240), ("fellow", 1630), ("americans", 2120))),
    _Phrase(3200, 4400, (("ask", 3990), ("not", 4270))),
    _Phrase(
        5300,
        7750,
        (("what", 5610), ("your", 5860), ("country", 6420), ("can", 6660), ("do", 6910), ("for", 7050), ("you", 7640)),
    ),
    _Phrase(
        8080,
        10560,
        (
            *(("ask", 8530), ("what", 8820), ("you", 9200), ("can", 9370), ("do", 9630)),
            *(("for", 9780), ("your", 9990), ("country", 10440)),
        ),
    ),
)
_ROOM_MS = (2300, 3150)
"""Nobody speaks here: the room between two phrases."""
_LAID_OUT = ((0, 700), (2, 900), (1, 600), (3, 1_200), (2, 700), (0, 700))
"""Phrases in order, and the pause before each."""
_FLUSHED = (3, 1_500)
"""The last phrase, cut off at its last word's end, and the pause before it."""


def constructed(recording: Path) -> Script:
    """The script put together of phrases of ``jfk.flac``."""
    sound, rate = soundfile.read(recording, dtype="int16")
    room: Samples = sound[_ROOM_MS[0] * rate // 1000 : _ROOM_MS[1] * rate // 1000]
    parts: list[Samples] = []
    truth: list[Spoken] = []
    at_ms = 0
    for number, pause_ms in (*_LAID_OUT, _FLUSHED):
        phrase = _PHRASES[number]
        stop_ms = phrase.stop_ms if (number, pause_ms) != _FLUSHED else phrase.words[-1][1]
        parts += [
            np.resize(room, pause_ms * rate // 1000),
            sound[phrase.start_ms * rate // 1000 : stop_ms * rate // 1000],
        ]
        truth += _placed(phrase.words, at_ms + pause_ms - phrase.start_ms)
        plain_ms = at_ms + pause_ms
        at_ms += pause_ms + stop_ms - phrase.start_ms
    samples = np.concatenate(parts).astype("<i2").tobytes()
    return Script(name="constructed", rate_hz=rate, samples=samples, plain_ms=plain_ms, truth=tuple(truth))


def _placed(words: Sequence[tuple[str, int]], shift_ms: int) -> list[Spoken]:
    return [Spoken(text=text, stop_ms=stop_ms + shift_ms) for text, stop_ms in words]
