"""What one window costs Whisper, alone and in a batch: CPU milliseconds of one core, beside ``transcribe()``.

``python -m benchmarks.window [--model FOLDER] [--floor SECONDS] [--quick] [--dry]``.  Without a folder a tone Whisper
of tiny.en's true size is made, and every text is compared with what was spoken; with one, people say digits, and every
text with what the model says to one window alone.  All cases of a table are run in turn, round by round.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import soundfile

from benchmarks import report
from streamsrv.audio.mel import MelTrack
from streamsrv.engines._whisper.loading import Model
from streamsrv.engines._whisper.settings import WhisperSettings
from streamsrv.engines._whisper.windows import columns
from streamsrv.engines.base import WINDOWS_S, Hypothesis, Window
from streamsrv.engines.whisper import WhisperEngine
from tests.models import tone

Samples = npt.NDArray[np.int16]
RATE_HZ = 16_000
SPOKEN_S = 4.5
"""Length of each window's audio."""
DIGITS = Path(__file__).parents[1] / "tests/models/digits/samples"
SPENT: dict[str, Callable[[], float]] = {"cpu": time.process_time, "cuda": time.perf_counter}
"""Work is counted in CPU time, which other programs disturb least; a GPU's in wall time."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds for each window of a batch."""

    table: str
    case: str
    ms: float
    against: float
    """Times cheaper than the first case of its table."""


class Costs(msgspec.Struct, kw_only=True):
    """One run."""

    command: str
    date: str
    machine: dict[str, str]
    model: str
    device: str
    gauge: dict[str, float]
    rows: list[Cost]
    guard: bool
    """Whether every text was right."""


def spent(clock: Callable[[], float], jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds of each job, the median of some rounds in which all take turns; one more warms up."""
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds + 1):
        for name, job in jobs.items():
            before = clock()
            job()
            taken[name].append(1e3 * (clock() - before))
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


def table(name: str, costs: dict[str, float], pieces: dict[str, int]) -> list[Cost]:
    each = {case: ms / pieces.get(case, 1) for case, ms in costs.items()}
    first = next(iter(each.values()))
    return [Cost(table=name, case=case, ms=ms, against=first / ms) for case, ms in each.items()]


def voices(made: bool, count: int) -> list[tuple[Samples, list[str] | None]]:
    """What is said in each window, and its words where they are known."""
    found: list[tuple[Samples, list[str] | None]] = []
    chance = np.random.default_rng(1)
    recordings = sorted(DIGITS.glob("*.flac"))
    for n in range(count):
        if made:
            words = [tone.WORDS[k] for k in chance.integers(0, len(tone.WORDS), round(SPOKEN_S / tone.SLOT_S))]
            found.append((tone.sound(words), words))
        else:
            audio: Samples = soundfile.read(recordings[n % len(recordings)], dtype="int16")[0]
            found.append((audio[: round(SPOKEN_S * RATE_HZ)], None))
    return found


def windows(engine: WhisperEngine, voices: Sequence[Samples], *, final: bool) -> list[Window]:
    found = []
    for audio in voices:
        attention = engine.attend(language="en")
        attention.take(audio.tobytes(), 0)
        found.append(Window(attention=attention, start=0, stop=len(audio), final=final))
    return found


def said(answers: Sequence[object]) -> list[list[str]]:
    return [[word.text for word in each.words] if isinstance(each, Hypothesis) else ["?"] for each in answers]


def encode_rows(model: Model, clock: Callable[[], float], rounds: int) -> list[Cost]:
    bands = len(model.filters)
    inputs = {seconds: np.zeros((1, bands, columns(seconds)), np.float32) for seconds in reversed(WINDOWS_S)}

    def job(features: npt.NDArray[np.float32]) -> Callable[[], object]:
        return lambda: np.asarray(model.core.encode(model.store(features), to_cpu=True))

    costs = spent(clock, {f"{seconds} s": job(features) for seconds, features in inputs.items()}, rounds)
    return table("encode one window of", costs, {})


def hear_rows(
    engine: WhisperEngine, name: str, voices: list[Samples], *, final: bool, clock: Callable[[], float], rounds: int
) -> list[Cost]:
    sizes = [size for size in (1, 2, 4, 8, 16, 32, 64) if size <= len(voices)]
    batches = {f"{size} together": windows(engine, voices[:size], final=final) for size in sizes}

    def job(batch: list[Window]) -> Callable[[], object]:
        return lambda: engine.hear(batch)

    costs = spent(clock, {case: job(batch) for case, batch in batches.items()}, rounds)
    return table(f"hear {name}, a window of", costs, {case: len(batch) for case, batch in batches.items()})


def usual_rows(
    model: Model, engine: WhisperEngine, audio: Samples, clock: Callable[[], float], rounds: int
) -> list[Cost]:
    """``transcribe()`` as it is used everywhere, and ours, for the same audio."""
    floats = audio.astype(np.float32) / 32_768
    whisper = model.whisper

    def usual() -> object:
        segments, _ = whisper.transcribe(floats, language="en", beam_size=1, temperature=0.0, without_timestamps=True)
        return list(segments)

    asked = windows(engine, [audio], final=False)
    costs = spent(clock, {"transcribe(), 30 s": usual, "ours, fitted": lambda: engine.hear(asked)}, rounds)
    return table("one partial by", costs, {})


def mel_rows(model: Model, rounds: int) -> list[Cost]:
    """Features of a window of 5 s, asked for every 0.5 s: computed anew, or only what is new."""
    audio = (np.random.default_rng(1).standard_normal(30 * RATE_HZ) * 3_000).astype(np.int16)
    extractor, step, length = model.whisper.feature_extractor, RATE_HZ // 2, 5 * RATE_HZ
    out = np.empty((len(model.filters), 500), np.float32)

    def anew() -> None:
        for stop in range(length, len(audio), step):
            extractor(audio[stop - length : stop].astype(np.float32) / 32_768)

    def once() -> None:
        track = MelTrack(model.filters)
        track.take(audio[: length - step].tobytes(), 0)
        for stop in range(length, len(audio), step):
            track.take(audio[stop - step : stop].tobytes(), stop - step)
            track.fill(out, stop - length, stop)

    updates = len(range(length, len(audio), step))
    costs = spent(time.process_time, {"FeatureExtractor": anew, "ours": once}, rounds)
    return table("features of one partial by", costs, dict.fromkeys(costs, updates))


async def measure(chosen: argparse.Namespace, folder: Path) -> Costs:
    made = chosen.model is None
    rounds, most = (2, 8) if chosen.quick else (5, 16 if chosen.device == "cpu" else 64)
    settings = WhisperSettings(
        model=str(folder), device=chosen.device, cpu_threads=1, window_floor_s=chosen.floor, batch=most
    )
    engine, cheap = WhisperEngine(settings), WhisperEngine(msgspec.structs.replace(settings, partial_words="estimated"))
    await engine.start()
    await cheap.start()
    model = engine.model
    clock = SPENT[model.core.device]
    known = voices(made, most)
    audios = [audio for audio, _ in known]
    before = report.gauge()
    rows = [*mel_rows(model, rounds), *encode_rows(model, clock, rounds)]
    for name, one, final in (
        ("a partial", engine, False),
        ("a partial, guessed", cheap, False),
        ("a final", engine, True),
    ):
        rows += hear_rows(one, name, audios, final=final, clock=clock, rounds=rounds)
    rows += usual_rows(model, engine, audios[0], clock, rounds)
    alone = [said(engine.hear([each]))[0] for each in windows(engine, audios, final=True)]
    wanted = [words or heard for (_, words), heard in zip(known, alone, strict=True)]
    about, gauge = engine.about, {"before_ms": before, "after_ms": report.gauge()}
    guard = alone == wanted == said(engine.hear(windows(engine, audios, final=True)))
    guard &= said(cheap.hear(windows(cheap, audios, final=False))) == wanted
    await engine.close()
    await cheap.close()
    begun = report.begin("python -m benchmarks.window")
    return Costs(
        command=begun.command,
        date=begun.date,
        machine=begun.machine,
        model="tone at tiny.en's size" if made else about.model,
        device=about.device,
        gauge=gauge,
        rows=rows,
        guard=guard,
    )


def show(costs: Costs) -> None:
    print(f"{costs.command}   {costs.date}   {costs.model}, {costs.device}")
    print("   ".join(costs.machine.values()))
    shown = ""
    for row in costs.rows:
        if row.table != shown:
            shown = row.table
            print(f"{shown}")
        print(f"    {row.case:20} {row.ms:9.3f} ms   {row.against:6.2f} times cheaper")
    print(f"gauge {costs.gauge['before_ms']:.2f} ms before, {costs.gauge['after_ms']:.2f} ms after")
    print("every text right" if costs.guard else "guard FAILED: a text was wrong")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.window", description=__doc__)
    parser.add_argument("--model", help="folder of a model; omitted: a tone Whisper of tiny.en's size")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--floor", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="for guards, not for figures")
    parser.add_argument("--dry", action="store_true", help="keep no file")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(chosen.model) if chosen.model else Path(place) / "tone"
        if chosen.model is None:
            tone.make(folder, size=tone.TINY, quantization="int8")
        costs = asyncio.run(measure(chosen, folder))
    show(costs)
    if not chosen.dry and not chosen.quick:
        name = "window" if chosen.model is None else f"window-{folder.resolve().name}"
        report.RESULTS.mkdir(parents=True, exist_ok=True)
        path = report.RESULTS / f"{name}-{costs.date}.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(costs), indent=2) + b"\n")
    return 0 if costs.guard else 1


if __name__ == "__main__":
    sys.exit(main())
