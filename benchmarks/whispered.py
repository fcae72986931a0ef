"""How soon Whisper's words are there: ``python -m benchmarks.latency --engine whisper [--model FOLDER]``.

Speakers in real time before a real server with default settings, each row a server of its own.  Live finals are
compared with the same audio heard offline, whole, in one call of the same engine; monologues are long enough to be cut
for their length.  Goals are those of one or a few sessions; ``benchmarks.load --engine whisper`` is about many.

Guards, which alone decide the exit code: those of every session, and of tones every word heard, live and offline.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from benchmarks import plot
from benchmarks.figures import Spread, begin, finish, spread, table
from benchmarks.judging import edits
from benchmarks.script import Script
from benchmarks.spoken import DIGITS, digits, tones
from benchmarks.trials import MADE, Trial, model_folder, server, trial
from streamsrv.engines.base import Hypothesis, Window
from streamsrv.engines.whisper import WhisperEngine, WhisperSettings

FLUSHES: Final = 12
"""Of small tones, one after the other."""
MONOLOGUE_S: Final = 26.0
"""Of speech without a pause: cut once for its length, and short enough to be heard offline in one window."""
JOINED_S: Final = 0.15
"""Between two recordings of digits in a monologue: no detector ends a segment there."""
GOALS: Final = {
    "commit_p50_alone": 700.0,
    "flush_p95": 60.0,
    "first_partial_p50_digits": 900.0,
    "commit_p50_digits": 1_500.0,
    "upwr": 0.3,
    "wer_gap": 0.005,
    "wer_gap_digits": 0.01,
}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One server and what was said before it."""

    name: str
    model: str
    floor: int
    scripts: tuple[Script, ...]
    exact: bool = True
    """Whether every word must be heard."""
    offline: bool = False
    """Whether the same is heard offline too."""


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a row."""

    row: Row
    run: Trial
    wer: float
    """Of live finals against what was said."""
    offline_wer: float | None


def rows(seconds: float, floor: int, model: str, sessions: int) -> list[Row]:
    """What is measured: with tones, and with people's digits if no other model is named."""
    people = str(DIGITS) if model == "tone" else model
    found = [
        Row(name="digits", model=people, floor=floor, scripts=_many(sessions, seconds, digits), exact=False),
        Row(
            name="digits, monologue",
            model=people,
            floor=floor,
            scripts=tuple(digits(50 + n, MONOLOGUE_S, pause_s=JOINED_S) for n in range(sessions)),
            exact=False,
            offline=True,
        ),
    ]
    if model != "tone":
        return found
    return [
        Row(name="tones, true size, alone", model="tone", floor=floor, scripts=_many(1, 2 * seconds, tones)),
        Row(
            name="tones, true size, monologue",
            model="tone",
            floor=floor,
            scripts=tuple(tones(70 + n, MONOLOGUE_S) for n in range(2)),
            offline=True,
        ),
        Row(name="tones, small, flushed", model="small-tone", floor=floor, scripts=_flushes(FLUSHES)),
        *found,
    ]


def _many(count: int, seconds: float, said: object) -> tuple[Script, ...]:
    if said is tones:
        return tuple(tones(10 + n, seconds, share=0.7) for n in range(count))
    return tuple(digits(20 + n, seconds) for n in range(count))


def _flushes(count: int) -> tuple[Script, ...]:
    """Short ones, each flushed at the end of its last word."""
    return tuple(tones(90 + n, 1.8) for n in range(count))


async def measure(wanted: Sequence[Row]) -> list[Done]:
    """One row after the other."""
    return [await _measure(row) for row in wanted]


async def _measure(row: Row) -> Done:
    async with model_folder(row.model) as model:
        offline_wer = await _offline(model, row) if row.offline else None
        async with server(model, f"whisper.window_floor_s={row.floor}") as port:
            if row.name.endswith("flushed"):  # alone, one after the other: an idle server
                run = await _in_turn(port, row.scripts)
            else:
                run = await trial(port, row.scripts)
    heard = run.heard
    return Done(row=row, run=run, wer=heard.truth_errors / max(1, heard.truth), offline_wer=offline_wer)


async def _in_turn(port: int, scripts: Sequence[Script]) -> Trial:
    runs = [await trial(port, [script], seed=number) for number, script in enumerate(scripts)]
    for run in runs[1:]:
        runs[0].heard.add(run.heard)
    return runs[0]


async def _offline(model: Path, row: Row) -> float:
    """Word error rate of each script as one final window."""
    engine = WhisperEngine(WhisperSettings(model=str(model), window_floor_s=row.floor))
    await engine.start()
    errors = words = 0
    try:
        for script in row.scripts:
            said = await asyncio.to_thread(_whole, engine, script)
            truth = [word.text for word in script.truth]
            errors += edits(truth, said)
            words += len(truth)
    finally:
        await engine.close()
    return errors / max(1, words)


def _whole(engine: WhisperEngine, script: Script) -> list[str]:
    samples = np.frombuffer(script.samples, "<i2")
    attention = engine.attend(language=None)
    attention.take(script.samples, 0)
    window = Window(attention=attention, start=0, stop=len(samples), final=True, prefix=())
    (answer,) = engine.hear([window])
    attention.close()
    if not isinstance(answer, Hypothesis):
        raise answer
    return [word.text for word in answer.words]


# --- telling ----------------------------------------------------------------------------------------------------------


def broken(done: Sequence[Done]) -> list[str]:
    """What the guards found."""
    told = []
    for each in done:
        told += [f"{each.row.name}: {what}" for what in each.run.heard.broken]
        if each.run.refused:
            told.append(f"{each.row.name}: {each.run.refused} speakers were not let in")
        if each.row.exact and (each.wer or each.offline_wer):
            told.append(f"{each.row.name}: {each.wer:.4f} of the words wrong, offline {each.offline_wer}")
    return told


def _pools(done: Done) -> dict[str, Spread]:
    heard = done.run.heard
    return {
        name: spread(pool)
        for name, pool in (
            ("first_partial", heard.first_partial),
            ("commit", heard.commit),
            ("finalise", heard.finalise),
            ("flush", heard.flush),
            ("speaker_late", heard.late),
        )
    }


def figures(done: Done) -> dict[str, object]:
    """As they are kept."""
    heard = done.run.heard
    return {
        "model": MADE.get(done.row.model) or Path(done.row.model).name,
        "floor_s": done.row.floor,
        "sessions": len(done.row.scripts),
        **{f"{name}_ms": msgspec.to_builtins(values) for name, values in _pools(done).items()},
        "words": heard.words,
        "stable_before_final": round(heard.stable / max(1, heard.words), 3),
        "upwr": round(heard.withdrawn / max(1, heard.words), 3),
        "wer": round(done.wer, 4),
        "offline_wer": None if done.offline_wer is None else round(done.offline_wer, 4),
        "stall_ms": msgspec.to_builtins(done.run.stall),
        "others_cores": done.run.others,
        "stolen_ms": done.run.stolen_ms,
    }


def shown(done: Sequence[Done]) -> str:
    """The table for people."""
    head = ("ms", "words", "first p50", "p95", "stable p50", "p95", "final p50", "p95", "flush p95", "upwr", "WER")
    lines = []
    for each in done:
        pools, heard = _pools(each), each.run.heard
        first, commit, final = pools["first_partial"], pools["commit"], pools["finalise"]
        times = [f"{value:.0f}" for value in (first.p50, first.p95, commit.p50, commit.p95, final.p50, final.p95)]
        flush = pools["flush"].cells()[1]
        wer = f"{each.wer:.4f}" + ("" if each.offline_wer is None else f" ({each.offline_wer:.4f})")
        upwr = f"{heard.withdrawn / max(1, heard.words):.3f}"
        lines.append((each.row.name, str(heard.words), *times, flush, upwr, wer))
    goals = ", ".join(f"{name} {value:g}" for name, value in GOALS.items())
    return f"{table(head, lines)}\nWER in brackets: the same audio offline, whole.  Goals: {goals}."


def drawn(path: Path, done: Sequence[Done]) -> Path:
    """Medians and tails of every row."""
    pools = [_pools(each) for each in done]
    return plot.bars(
        path,
        [each.row.name.replace(", ", "\n") for each in done],
        {
            "first partial, p50": [each["first_partial"].p50 for each in pools],
            "stable, p50": [each["commit"].p50 for each in pools],
            "stable, p95": [each["commit"].p95 for each in pools],
        },
        title="Whisper, one or a few live sessions: from a word's end",
        y="ms",
    )


def main(arguments: Sequence[str]) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency --engine whisper", description=__doc__)
    parser.add_argument("--engine", choices=("whisper",))
    parser.add_argument("--model", default="tone", help="a folder with a model of digits; omitted: tones and digits")
    parser.add_argument("--floor", type=int, default=5, help="shortest window, seconds")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each speaker with pauses")
    parser.add_argument("--sessions", type=int, default=3, help="speakers of digits at once")
    parser.add_argument("--only", nargs="+", default=(), help="the rows of these names")
    parser.add_argument("--dry", action="store_true", help="keep no file")
    asked = parser.parse_args(arguments)
    measured = begin("latency", arguments)
    wanted = rows(asked.seconds, asked.floor, asked.model, asked.sessions)
    done = asyncio.run(measure([row for row in wanted if not asked.only or row.name in asked.only]))
    measured.figures = {"goals_ms": GOALS, **{each.row.name: figures(each) for each in done}}
    measured.broken = broken(done)
    name = "latency-whisper" if asked.model == "tone" else f"latency-whisper-{Path(asked.model).resolve().name}"
    if not asked.dry:
        drawn(plot.place(name, measured.date), done)
    return finish(measured, name, shown(done), keep=not asked.dry)
