"""What one window costs Whisper, alone and in a batch, beside ``transcribe()``.

``python -m benchmarks.window [--model FOLDER | --size tiny.en|small|turbo --weights tone|random]
[--floors SECONDS ...] [--device cpu|cuda] [--rounds N] [--quick] [--dry]``.  Without a folder a Whisper of true size is
made.  One of tones must say what was spoken.  With random weights a partial is as dear as it can be: its text means
nothing and never ends.  With a folder people say digits, and every text is compared with what the model says to one
window alone.  All cases of a table are run in turn, round by round.

Milliseconds are CPU time of one core; on a GPU they are wall time.
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
from msgspec.structs import replace

from benchmarks import report
from streamsrv.audio.mel import MelTrack
from streamsrv.engines._whisper.loading import Model
from streamsrv.engines._whisper.settings import WhisperSettings
from streamsrv.engines._whisper.windows import columns
from streamsrv.engines.base import WINDOWS_S, Hypothesis, Window
from streamsrv.engines.whisper import WhisperEngine
from tests.models import sized, tone
from tests.models.sized import SIZES

Samples = npt.NDArray[np.int16]
RATE_HZ = 16_000
SPOKEN_S = 4.5
"""Length of each window's audio."""
DIGITS = Path(__file__).parents[1] / "tests/models/digits/samples"
SPENT: dict[str, Callable[[], float]] = {"cpu": time.process_time, "cuda": time.perf_counter}
"""Work is counted in CPU time, which other programs disturb least; a GPU's in wall time."""
STORED: dict[str, str] = {"cpu": "int8", "cuda": "float16"}
"""Precision of models that are made, on disk."""


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
    bands, chance = len(model.filters), np.random.default_rng(1)
    inputs = {seconds: chance.random((1, bands, columns(seconds)), dtype=np.float32) for seconds in reversed(WINDOWS_S)}

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
    return table(f"hear {name}, each of", costs, {case: len(batch) for case, batch in batches.items()})


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


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be measured."""

    folder: Path
    device: str
    floors: tuple[int, ...]
    quick: bool
    truth: bool
    """Whether the model hears tones; otherwise it hears people, and says in a batch what it says alone."""
    means: bool
    """Whether its texts mean anything."""
    rounds: int

    @property
    def most(self) -> int:
        """Windows in the largest batch."""
        return 8 if self.quick else 16 if self.device == "cpu" else 64


async def measure(wanted: Wanted) -> tuple[list[Cost], bool, str]:
    """All tables; whether every text was right; and the device."""
    rows: list[Cost] = []
    right, device = True, ""
    known = voices(wanted.truth, wanted.most)
    for number, floor in enumerate(wanted.floors):
        settings = WhisperSettings(
            model=str(wanted.folder),
            device=wanted.device,
            cpu_threads=1,
            window_floor_s=floor,
            batch=wanted.most,
        )
        engine, cheap = WhisperEngine(settings), WhisperEngine(replace(settings, partial_words="estimated"))
        await engine.start()
        if wanted.means:
            await cheap.start()
        device = engine.about.device
        if number == 0:
            rows += plain_rows(engine, next(audio for audio, _ in known), wanted)
        more, fine = floor_rows(engine, cheap, floor, known, wanted)
        rows += more
        right &= fine
        await engine.close()
        await cheap.close()
    return rows, right, device


def plain_rows(engine: WhisperEngine, audio: Samples, wanted: Wanted) -> list[Cost]:
    """What no floor changes, and ``transcribe()`` beside the first one."""
    model = engine.model
    clock, rounds = SPENT[model.core.device], wanted.rounds
    usual = usual_rows(model, engine, audio, clock, rounds) if wanted.means else []
    return [*mel_rows(model, rounds), *encode_rows(model, clock, rounds), *usual]


def floor_rows(
    engine: WhisperEngine,
    cheap: WhisperEngine,
    floor: int,
    known: list[tuple[Samples, list[str] | None]],
    wanted: Wanted,
) -> tuple[list[Cost], bool]:
    """Partials and finals in batches, and whether their texts were right."""
    clock, audios = SPENT[engine.model.core.device], [audio for audio, _ in known]
    rows: list[Cost] = []
    kinds = [("a partial", engine, False), ("a partial, guessed", cheap, False), ("a final", engine, True)]
    for name, one, final in kinds if wanted.means else kinds[:1]:
        rows += hear_rows(one, f"{name}, floor {floor} s", audios, final=final, clock=clock, rounds=wanted.rounds)
    together = engine.hear(windows(engine, audios, final=wanted.means))
    if not wanted.means:
        return rows, all(isinstance(each, Hypothesis) for each in together)
    alone = [said(engine.hear([each]))[0] for each in windows(engine, audios, final=True)]
    truth = [words or heard for (_, words), heard in zip(known, alone, strict=True)]
    guessed = said(cheap.hear(windows(cheap, audios, final=False)))
    return rows, alone == truth == said(together) and guessed == truth


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
    parser.add_argument("--model", help="folder of a model of digits; omitted: one is made")
    parser.add_argument("--size", choices=tuple(SIZES), default="tiny.en", help="of a model that is made")
    parser.add_argument("--weights", choices=("tone", "random"), default="tone", help="of a model that is made")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--floors", type=int, nargs="+", default=(5,), help="shortest windows, seconds")
    parser.add_argument("--rounds", type=int, default=5, help="in which all cases of a table take turns")
    parser.add_argument("--quick", action="store_true", help="for guards, not for figures")
    parser.add_argument("--dry", action="store_true", help="keep no file")
    chosen = parser.parse_args(arguments)
    begun = report.begin(" ".join(["python -m benchmarks.window", *(sys.argv[1:] if arguments is None else arguments)]))
    with tempfile.TemporaryDirectory() as place:
        kind = chosen.device.partition(":")[0]
        folder = Path(chosen.model) if chosen.model else made(Path(place) / "made", chosen, STORED.get(kind, "int8"))
        wanted = Wanted(
            folder=folder,
            device=chosen.device,
            floors=tuple(chosen.floors),
            quick=chosen.quick,
            truth=chosen.model is None,
            means=chosen.model is not None or chosen.weights == "tone",
            rounds=2 if chosen.quick else chosen.rounds,
        )
        before = report.gauge()
        rows, right, device = asyncio.run(measure(wanted))
    costs = Costs(
        command=begun.command,
        date=begun.date,
        machine=begun.machine,
        model=folder.resolve().name if chosen.model else f"{chosen.weights} at {chosen.size}'s size",
        device=device,
        gauge={"before_ms": before, "after_ms": report.gauge()},
        rows=rows,
        guard=right,
    )
    show(costs)
    if not chosen.dry and not chosen.quick:
        name = f"window-{folder.resolve().name}" if chosen.model else named(chosen, kind)
        report.write(costs, name, report.RESULTS)
    return 0 if costs.guard else 1


def made(folder: Path, chosen: argparse.Namespace, stored: str) -> Path:
    """A model of true size."""
    if chosen.weights == "random":
        return sized.make(folder, chosen.size, quantization=stored)
    return tone.make(folder, size=SIZES[chosen.size], quantization=stored)


def named(chosen: argparse.Namespace, kind: str) -> str:
    """What the file of a made model is called: size, weights, device and floors, where they are not the usual ones."""
    usual = {"size": "tiny.en", "weights": "tone"}
    told = [getattr(chosen, name) for name, value in usual.items() if getattr(chosen, name) != value]
    told += [kind] if kind != "cpu" else []
    told += ["floors", *map(str, chosen.floors)] if tuple(chosen.floors) != (5,) else []
    return "-".join(["window", *told])


if __name__ == "__main__":
    sys.exit(main())
