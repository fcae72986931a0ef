"""What windows cost in accuracy: ``python -m benchmarks.accuracy --engine whisper --model FOLDER --audio PLACE``.

Any recordings with a text of the same name beside them, cut by the server's own front.  Four ways side by side: live,
through the real server at the pace of speech with partials that bind, and offline, each segment heard once; both with
windows fitted to the audio and with the full 30 s Whisper was trained on.  So a user judges ``whisper.window_floor_s``
on his own speech.  Without a model and recordings: people's digits, and the small model of the tests.

The guard, which alone decides the exit code: that of every live session.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

import aiohttp
import msgspec
import soundfile

from benchmarks import plot
from benchmarks.accuracy import Recording, Tally, recordings, segments_of, words_of
from benchmarks.figures import begin, finish, table
from benchmarks.judging import violations
from benchmarks.listening import Heard, play
from benchmarks.script import SOUNDS, Script
from benchmarks.spoken import DIGITS, known_digits
from benchmarks.tape import RATE_HZ
from benchmarks.trials import FRAME_MS, server
from streamsrv.engines.base import Hypothesis, Window
from streamsrv.engines.whisper import WhisperEngine, WhisperSettings

Windows: TypeAlias = Literal["fitted", "full"]
WINDOWS: Final[tuple[Windows, ...]] = ("fitted", "full")
QUIET_S: Final = 1
"""Silence after a recording, so that the front finds its end."""


class Spoken(msgspec.Struct, frozen=True, kw_only=True):
    """A recording for both ways."""

    offline: Recording
    live: Script


def spoken(places: Sequence[Path]) -> list[Spoken]:
    """Recordings with their texts; the digits of the tests when no place is named."""
    if not places:
        folder = DIGITS / "samples"
        return [_spoken(folder / one.file, tuple(one.words)) for one in known_digits()]
    files = [file for place in places for file in ([place] if place.is_file() else place.iterdir())]
    sounds = {file.stem: file for file in files if file.suffix.lower() in SOUNDS}
    return [_spoken(sounds[recording.name], recording.truth) for recording in recordings(places)]


def _spoken(file: Path, truth: tuple[str, ...]) -> Spoken:
    sound, rate = soundfile.read(file, dtype="int16", always_2d=True)
    samples = sound[:, 0].astype("<i2").tobytes() + bytes(2 * rate * QUIET_S)
    return Spoken(
        offline=Recording(name=file.stem, segments=tuple(segments_of(samples, rate)), truth=truth),
        live=Script(name=file.stem, rate_hz=rate, samples=samples, plain_ms=len(samples) // 2 * 1000 // rate),
    )


# --- two ways ---------------------------------------------------------------------------------------------------------


async def offline(model: str, floor: int, windows: Windows, everything: Sequence[Spoken]) -> Tally:
    """Each segment heard once, whole."""
    engine = WhisperEngine(WhisperSettings(model=model, window_floor_s=floor, final_window=windows))
    await engine.start()
    tally = Tally()
    try:
        for one in everything:
            tally.add(one.offline, await asyncio.to_thread(_hear, engine, one.offline))
    finally:
        await engine.close()
    return tally


def _hear(engine: WhisperEngine, recording: Recording) -> list[str]:
    attention = engine.attend(language=None)
    heard: list[str] = []
    position = 0
    for segment in recording.segments:
        stop = position + len(segment) // 2
        attention.take(segment, position)
        (answer,) = engine.hear([Window(attention=attention, start=position, stop=stop, final=True, prefix=())])
        if not isinstance(answer, Hypothesis):
            raise answer
        heard += [word.text for word in answer.words]
        attention.forget(stop)
        position = stop + RATE_HZ
    return heard


async def live(
    model: str, floor: int, windows: Windows, everything: Sequence[Spoken], sessions: int
) -> tuple[Tally, list[str]]:
    """Through a server, so many speakers at once; and what the guards found."""
    tally, broken = Tally(), list[str]()
    chosen = (f"whisper.window_floor_s={floor}", f"whisper.final_window={windows}")
    turn = asyncio.Semaphore(sessions)
    async with server(Path(model), *chosen) as port, aiohttp.ClientSession() as http:

        async def speak(number: int, one: Spoken) -> None:
            async with turn:
                heard = await play(
                    http, f"ws://127.0.0.1:{port}/transcription/stream/live-{number}", one.live, FRAME_MS
                )
            tally.add(one.offline, _finals(heard))
            broken.extend(f"live, {windows}, {one.offline.name}: {what}" for what in violations(heard))

        await asyncio.gather(*(speak(number, one) for number, one in enumerate(everything)))
    return tally, broken


def _finals(heard: Heard) -> list[str]:
    texts = [str(arrival.message["text"]) for arrival in heard.arrivals if arrival.message["type"] == "final"]
    return words_of(" ".join(texts))


async def compare(
    model: str, floor: int, everything: Sequence[Spoken], sessions: int
) -> tuple[dict[str, Tally], list[str]]:
    """All four ways, in turns, and what the guards found."""
    tallies: dict[str, Tally] = {}
    broken: list[str] = []
    for windows in WINDOWS:
        tallies[f"offline, {windows}"] = await offline(model, floor, windows, everything)
        tallies[f"live, {windows}"], found = await live(model, floor, windows, everything, sessions)
        broken += found
    return tallies, broken


def main(arguments: Sequence[str]) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy --engine whisper", description=__doc__)
    parser.add_argument("--engine", choices=("whisper",))
    parser.add_argument("--model", default=str(DIGITS), help="folder of a model")
    parser.add_argument("--audio", type=Path, nargs="+", default=[], help="recordings or folders; texts beside them")
    parser.add_argument("--floor", type=int, default=5, help="shortest window, seconds")
    parser.add_argument("--sessions", type=int, default=4, help="live speakers at once")
    parser.add_argument("--dry", action="store_true", help="keep no file")
    asked = parser.parse_args(arguments)
    everything = spoken(asked.audio)
    if not everything:
        parser.error("no recording there has a text of the same name beside it")
    measured = begin("accuracy", arguments)
    tallies, measured.broken = asyncio.run(compare(asked.model, asked.floor, everything, asked.sessions))
    name = f"accuracy-{Path(asked.model).resolve().name}"
    measured.figures = {
        "model": Path(asked.model).resolve().name,
        "floor_s": asked.floor,
        "recordings": [one.offline.name for one in everything],
        "ways": {
            way: {
                "wer": round(tally.wer, 4),
                "errors": tally.errors,
                "words": tally.words,
                "by_recording": tally.by_recording,
            }
            for way, tally in tallies.items()
        },
    }
    rows = [(way, f"{tally.wer:.4f}", str(tally.errors), str(tally.words)) for way, tally in tallies.items()]
    if not asked.dry:
        wers = {"WER": [tally.wer for tally in tallies.values()]}
        title = f"Word error rate, windows of {asked.floor} s or more, and of 30 s"
        plot.bars(plot.place(name, measured.date), list(tallies), wers, title=title, y="WER")
    return finish(measured, name, table(("way", "WER", "errors", "words"), rows), keep=not asked.dry)
