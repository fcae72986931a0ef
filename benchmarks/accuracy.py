"""What PocketSphinx hears: ``python -m benchmarks.accuracy [--audio PLACE ...] [--sessions N]``.

Human speech, cut into segments by the server's own front.  The library's defaults and our profile hear the same
segments in turn, in this process, on CPU time; then sessions in real time through the engine's worker processes tell
how soon a final is there.

On a busy machine ``chrt -r 10`` before the command keeps others out of the figures; the file says so.

``--engine whisper`` compares live with offline and fitted windows with full ones (``benchmarks.windows``).

The guard, which alone decides the exit code: another split of the same audio gives the same words.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
import soundfile

from benchmarks.figures import begin, engine_of, finish, spread, table
from benchmarks.judging import edits
from benchmarks.script import SOUNDS
from benchmarks.served import speech_file
from streamsrv.audio.front import Front
from streamsrv.commands import Options
from streamsrv.engines._sphinx.ear import Ear
from streamsrv.engines._sphinx.posterior import Spoken, with_posteriors
from streamsrv.engines._sphinx.voice import Voice
from streamsrv.engines.base import Listener
from streamsrv.engines.sphinx import SphinxEngine, SphinxSettings
from streamsrv.facts import RATE_HZ, Mark, SpeechBegan, SpeechEnded

if TYPE_CHECKING:
    from pocketsphinx import Decoder

PIECE: Final = RATE_HZ // 10
"""Samples handed over at a time: 100 ms."""
AGREEMENT: Final = 8
"""Equal partials after which a word is stable."""
LONG: Final = 3 * RATE_HZ
"""Utterances longer than this must show stable words before their final."""
WAYS: Final = ("library defaults", "ours", "ours, best path")
SPELLED: Final = {"mr": "mister", "mrs": "missus"}


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """One session: its segments, int16 at 16 000 Hz, and the words said in them."""

    name: str
    segments: tuple[bytes, ...]
    truth: tuple[str, ...]


class Tally(msgspec.Struct, kw_only=True):
    """What one way of hearing came to."""

    errors: int = 0
    words: int = 0
    cpu_s: float = 0.0
    audio_s: float = 0.0
    end_ms: list[float] = []
    """CPU time from the last sample handed over to the segment's words."""
    by_recording: dict[str, float] = {}
    """Word error rate of each."""

    def add(self, recording: Recording, heard: Sequence[str]) -> None:
        errors = edits(recording.truth, tuple(words_of(" ".join(heard))))
        self.errors += errors
        self.words += len(recording.truth)
        self.by_recording[recording.name] = round(errors / max(len(recording.truth), 1), 3)

    @property
    def wer(self) -> float:
        return self.errors / max(self.words, 1)

    @property
    def rtf(self) -> float:
        return self.cpu_s / max(self.audio_s, 1e-9)


class Stability(msgspec.Struct, kw_only=True):
    """Words of long segments, and those of them that were stable before the final."""

    words: int = 0
    stable: int = 0
    contradicted: int = 0
    """Stable words that the engine's own final does not begin with; the session keeps them all the same."""
    broken: list[str] = []

    @property
    def share(self) -> float:
        return self.stable / max(self.words, 1)


# --- recordings --------------------------------------------------------------------------------------------------


def words_of(text: str) -> list[str]:
    """Lower case, without punctuation, abbreviations as they are spoken."""
    plain = re.sub(r"[^\w' ]+|_", " ", text.lower().replace("’", "'"))
    return [SPELLED.get(word, word) for word in plain.split()]


def recordings(places: Sequence[Path]) -> list[Recording]:
    """Those with a text beside them, of the same name."""
    files = [file for place in places for file in ([place] if place.is_file() else sorted(place.iterdir()))]
    sounds = [file for file in files if file.suffix.lower() in SOUNDS and file.with_suffix(".txt").exists()]
    return [_recording(file) for file in sounds]


def _recording(file: Path) -> Recording:
    sound, rate = soundfile.read(file, dtype="int16", always_2d=True)
    samples = np.ascontiguousarray(sound[:, 0], dtype="<i2").tobytes()
    truth = tuple(words_of(file.with_suffix(".txt").read_text("utf-8")))
    return Recording(name=file.stem, segments=tuple(segments_of(samples, rate)), truth=truth)


def segments_of(samples: bytes, rate_hz: int) -> list[bytes]:
    """The speech in ``samples`` (int16, mono), as the server cuts it: int16 at 16 000 Hz."""
    front = Front(Options(sample_rate=rate_hz))
    marks: list[Mark] = []
    cut: list[bytes] = []
    begun = 0
    step = rate_hz // 50 * 2
    for start in range(0, len(samples) + step, step):
        marks = [*(front.feed(samples[start : start + step], 0.0) if start < len(samples) else front.finish(0.0))]
        for mark in marks:
            if isinstance(mark, SpeechBegan):
                begun = mark.start
            elif isinstance(mark, SpeechEnded):
                cut.append(front.read(0, begun, mark.stop))
                front.release(0, mark.stop)
                begun = mark.stop
    return cut


# --- one way after the other -------------------------------------------------------------------------------------


def compare(all_of: Sequence[Recording]) -> tuple[dict[str, Tally], Stability]:
    """All ways on all recordings, in turn."""
    from pocketsphinx import Decoder

    defaults, ear = Decoder(loglevel="FATAL"), Ear()
    ear.warm()
    tallies, stability = {way: Tally() for way in WAYS}, Stability()
    for recording in all_of:
        tallies[WAYS[0]].add(recording, _by_defaults(defaults, recording, tallies[WAYS[0]]))
        first, best = _by_us(ear, recording, tallies[WAYS[1]], stability)
        tallies[WAYS[1]].add(recording, first)
        tallies[WAYS[2]].add(recording, best)
        if _at_once(ear, recording) != first:
            stability.broken.append(f"{recording.name}: another split gave other words")
    tallies[WAYS[2]].cpu_s, tallies[WAYS[2]].audio_s = tallies[WAYS[1]].cpu_s, tallies[WAYS[1]].audio_s
    tallies[WAYS[2]].end_ms = tallies[WAYS[1]].end_ms
    return tallies, stability


def _by_defaults(decoder: Decoder, recording: Recording, tally: Tally) -> list[str]:
    decoder.reinit_feat()  # a new session
    heard: list[str] = []
    for segment in recording.segments:
        begun = time.process_time()
        decoder.start_utt()
        for piece in _pieces(segment):
            decoder.process_raw(piece)
            decoder.hyp()
        ended = time.process_time()
        decoder.end_utt()
        heard += _words(decoder)
        _clock(tally, segment, begun, ended)
    return heard


def _by_us(ear: Ear, recording: Recording, tally: Tally, stability: Stability) -> tuple[list[str], list[str]]:
    """First pass and best path."""
    voice, first, best = Voice(), list[str](), list[str]()
    for segment in recording.segments:
        partials: list[list[str]] = []
        begun = time.process_time()
        ear.begin(voice)
        for piece in _pieces(segment):
            ear.take(piece)
            partials.append([word.text for word in ear.words()])
        ended = time.process_time()
        words, voice = ear.end()
        _clock(tally, segment, begun, ended)
        final = [word.text for word in words]
        first += final
        best += _words(ear.decoder)
        _judge(partials, final, segment, stability)
    return first, best


def _judge(partials: list[list[str]], final: list[str], segment: bytes, stability: Stability) -> None:
    if len(segment) // 2 <= LONG:
        return
    stable = _stable(partials)
    kept = next((n for n, pair in enumerate(zip(stable, final, strict=False)) if pair[0] != pair[1]), None)
    stability.words += len(final)
    stability.stable += min(len(stable), len(final))
    stability.contradicted += len(stable) - (min(len(stable), len(final)) if kept is None else kept)


def _stable(partials: list[list[str]]) -> list[str]:
    """As the session machine holds words stable: never fewer than before, and only what continues them."""
    stable: list[str] = []
    for last in range(AGREEMENT, len(partials) + 1):
        newest = partials[last - AGREEMENT : last]
        same = 0
        while all(len(words) > same and words[same] == newest[0][same] for words in newest):
            same += 1
        if newest[0][: len(stable)] == stable and same > len(stable):
            stable = newest[0][:same]
    return stable


def _at_once(ear: Ear, recording: Recording) -> list[str]:
    voice, heard = Voice(), list[str]()
    for segment in recording.segments:
        ear.begin(voice)
        ear.take(segment)
        words, voice = ear.end()
        heard += [word.text for word in words]
    return heard


def _words(decoder: Decoder) -> list[str]:
    entries = [Spoken(one.word, one.start_frame, one.end_frame, one.prob) for one in decoder.seg() or ()]
    return [word.text for word in with_posteriors(entries, ())]


def _pieces(segment: bytes) -> list[bytes]:
    return [segment[start : start + 2 * PIECE] for start in range(0, len(segment), 2 * PIECE)]


def _clock(tally: Tally, segment: bytes, begun: float, ended: float) -> None:
    now = time.process_time()
    tally.cpu_s += now - begun
    tally.audio_s += len(segment) / 2 / RATE_HZ
    tally.end_ms.append(round(1e3 * (now - ended), 2))


# --- in real time ------------------------------------------------------------------------------------------------


async def finals_ms(all_of: Sequence[Recording], *, sessions: int, seconds: float) -> list[float]:
    """From the last sample handed over to the final, ms, each session on a worker of its own."""
    engine = SphinxEngine(SphinxSettings(workers=sessions))
    await engine.start()
    try:
        taken = await asyncio.gather(*(_session(engine, all_of, seconds, shift) for shift in range(sessions)))
    finally:
        await engine.close()
    return [one for each in taken for one in each]


async def _session(engine: SphinxEngine, all_of: Sequence[Recording], seconds: float, shift: int) -> list[float]:
    segments = [segment for recording in all_of for segment in recording.segments]
    turned = segments[shift * len(segments) // 2 :] + segments
    listener, taken, end = engine.listen(language=None), list[float](), time.monotonic() + seconds
    for segment in turned:
        if time.monotonic() > end:
            break
        taken.append(await _final_ms(listener, segment))
    listener.close()
    return taken


async def _final_ms(listener: Listener, segment: bytes) -> float:
    begun = time.monotonic()
    pieces = _pieces(segment)
    for number, piece in enumerate(pieces):
        await asyncio.sleep(max(begun + 0.1 * (number + 1) - time.monotonic(), 0))
        if number < len(pieces) - 1:
            await listener.hear(piece, final=False)
    asked = time.monotonic()
    await listener.hear(pieces[-1], final=True)
    return round(1e3 * (time.monotonic() - asked), 2)


# --- the report --------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if engine_of(given) == "whisper":
        from benchmarks import windows  # needs the extra 'whisper'

        return windows.main(given)
    asked = _parser().parse_args(given)
    measured = begin("accuracy", ())
    measured.machine["packages"] += f" pocketsphinx {version('pocketsphinx')}"
    all_of = recordings(asked.audio)
    tallies, stability = compare(all_of)
    finals = spread(asyncio.run(finals_ms(all_of, sessions=asked.sessions, seconds=asked.seconds)))
    speed = tallies[WAYS[0]].rtf / max(tallies[WAYS[1]].rtf, 1e-9)
    measured.figures = {
        "recordings": [recording.name for recording in all_of],
        "segments": sum(len(recording.segments) for recording in all_of),
        "ways": {way: _figures(tally) for way, tally in tallies.items()},
        "times_faster": round(speed, 2),
        "stable_share_of_long": round(stability.share, 3),
        "contradicted_share": round(stability.contradicted / max(stability.stable, 1), 4),
        "final_ms": finals,
        "sessions": asked.sessions,
        "real_time_priority": os.sched_getscheduler(0) != os.SCHED_OTHER,
    }
    measured.broken = stability.broken
    return finish(
        measured, "sphinx", _told(tallies, speed, stability, asked.sessions, finals.cells()), keep=not asked.dry
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    folder = speech_file().parent
    parser.add_argument("--engine", choices=("sphinx", "whisper"), default="sphinx")
    parser.add_argument("--audio", type=Path, nargs="+", default=[folder], help="recordings or folders of them")
    parser.add_argument("--sessions", type=int, default=1, help="in real time at once, one worker each")
    parser.add_argument("--seconds", type=float, default=60.0, help="of real time at most")
    parser.add_argument("--dry", action="store_true", help="keep no file")
    return parser


def _figures(tally: Tally) -> dict[str, object]:
    return {
        "wer": round(tally.wer, 3),
        "rtf": round(tally.rtf, 4),
        "end_cpu_ms": spread(tally.end_ms),
        "words": tally.words,
        "by_recording": tally.by_recording,
    }


def _told(tallies: dict[str, Tally], speed: float, stability: Stability, sessions: int, finals: Sequence[str]) -> str:
    rows = [
        (way, f"{tally.wer:.3f}", f"{tally.rtf:.3f}", *spread(tally.end_ms).cells()) for way, tally in tallies.items()
    ]
    return "\n".join(
        [
            table(("", "WER", "CPU s/s", "end p50", "p95", "p99", "max ms"), rows),
            f"{speed:.2f} times faster than the defaults (target 2)",
            f"{100 * stability.share:.0f} % of the words of segments over 3 s are stable before the final (target 50)",
            f"the engine's own final contradicts {stability.contradicted} of {stability.stable} stable words",
            f"final after the last sample, {sessions} sessions in real time: p50 {finals[0]} p95 {finals[1]} "
            f"max {finals[3]} ms (target p95 100)",
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
