"""Files and containers: ``python -m benchmarks.upload [--minutes 60] [--engine sphinx whisper]``.

An upload as long as asked for is heard by the engine that hears nothing (the way of the audio alone) and by real ones:
times real time, and the server's memory while it goes (four times a second), as a plot.  ``whisper`` is the small model
of the tests that knows the ten digits, and is given digits to hear.  Then somebody speaks as a browser does, WebM with
Opus at the pace of speech, and as bare samples: first byte to first partial of each.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import numpy.typing as npt
import soundfile

from benchmarks import figures, plot, report
from benchmarks.served import process
from tests.support.recordings import webm
from tests.support.speech import silence, voice

TESTS = Path(__file__).parents[1] / "tests"
SPEECH = TESTS / "data" / "speech"
DIGITS = TESTS / "models" / "digits"
RATE = 16_000
PIECE_S = 0.1
"""Seconds a browser's recorder puts into each message."""
ROUNDS = 5
MOST_GROWTH_MB = 128.0
"""Resident growth of the server beyond which its memory follows the file's length."""
WITHIN_S = 3_600.0
LOOK_EVERY_S = 0.25
"""Between two looks at the server's memory."""
RESIDENT = re.compile(r"^process_resident_memory_bytes (\S+)$", re.MULTILINE)


def resampled(samples: npt.NDArray[np.float32], rate: int, wanted: int) -> npt.NDArray[np.float64]:
    """Straight lines between samples: good enough to be spoken."""
    at = np.arange(len(samples) * wanted // rate) * (rate / wanted)
    return np.asarray(np.interp(at, np.arange(len(samples)), samples), np.float64)


def speech(kind: str) -> bytes:
    """Recordings of people where there are any, else what a detector takes for them; s16le, mono, 16 kHz."""
    folder = DIGITS / "samples" if kind == "whisper" else SPEECH
    found = sorted(path for path in folder.rglob("*") if path.suffix in (".wav", ".flac"))
    if not found:
        return silence(0.5) + voice(6.0) + silence(1.0)
    pieces = []
    for path in found:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        mono = resampled(samples.mean(axis=1), rate, RATE)
        pieces.append(np.round(np.clip(mono, -1, 1) * 32_767).astype("<i2").tobytes() + silence(0.6))
    return b"".join(pieces)


def long_file(path: Path, talk: bytes, minutes: float) -> float:
    """The talk again and again, as FLAC; seconds of it."""
    samples = np.frombuffer(talk, "<i2")
    times = max(1, round(minutes * 60 * RATE / len(samples)))
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16", format="FLAC") as file:
        for _ in range(times):
            file.write(samples)
    return times * len(samples) / RATE


@asynccontextmanager
async def server(kind: str, folder: Path) -> AsyncIterator[int]:
    """A server in a process of its own; its port."""
    if kind == "null":
        async with process("benchmarks.serving", "null", "--data-dir", str(folder / "null")) as port:
            yield port
    else:
        model = ("--model", str(DIGITS)) if kind == "whisper" else ()
        given = ("--port", "0", "--engine", kind, *model, "--data-dir", str(folder / kind))
        async with process("streamsrv", "serve", *given) as port:
            yield port


async def resident_mb(http: aiohttp.ClientSession, url: str) -> float:
    async with http.get(f"{url}/metrics") as answer:
        found = RESIDENT.search(await answer.text())
    return float(found[1]) / 2**20 if found else 0.0


async def upload(port: int, path: Path) -> tuple[dict[str, Any], float, list[float], int]:
    """The job when it is over, its seconds, memory every ``LOOK_EVERY_S``, and how many segments have words."""
    url = f"http://127.0.0.1:{port}"
    timeout = aiohttp.ClientTimeout(total=WITHIN_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        memory = [await resident_mb(http, url)]
        form = aiohttp.FormData()
        form.add_field("interviewId", "bench")
        begun = time.perf_counter()
        with path.open("rb") as file:
            form.add_field("file", file, filename="bench.flac")
            async with http.post(f"{url}/transcription/upload?wait=0", data=form) as answer:
                location = answer.headers["Location"]
        while True:
            async with http.get(f"{url}{location}") as answer:
                job: dict[str, Any] = await answer.json()
            if job["state"] not in ("queued", "running"):
                break
            memory.append(await resident_mb(http, url))
            await asyncio.sleep(LOOK_EVERY_S)
        took_s = (job["ended_ms"] - job["created_ms"]) / 1000 or time.perf_counter() - begun
        memory.append(await resident_mb(http, url))
        async with http.get(f"{url}/transcription/bench") as answer:
            segments = (await answer.json())["segments"]
        return job, took_s, memory, len(segments)


async def first_partial(port: int, data: bytes, pieces: int, query: str) -> dict[str, float]:
    """Milliseconds from the first byte to ``configured`` and to the first partial, spoken at the pace of speech."""
    told: dict[str, float] = {}
    step = -(-len(data) // pieces)
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"ws://127.0.0.1:{port}/transcription/stream/live{query}") as ws,
    ):
        await ws.receive_json()
        begun = time.perf_counter()

        async def speak() -> None:
            for number in range(pieces):
                await asyncio.sleep(max(0.0, begun + number * PIECE_S - time.perf_counter()))
                await ws.send_bytes(data[number * step : (number + 1) * step])
            await ws.send_json({"type": "finish"})

        speaking = asyncio.create_task(speak())
        async for message in ws:
            kind = message.json()["type"]
            if kind in ("configured", "partial"):
                told.setdefault(kind, (time.perf_counter() - begun) * 1000)
        await speaking
    return told


async def containers(port: int, talk: bytes) -> dict[str, figures.Spread]:
    part = talk[: 6 * RATE * 2]
    pieces = round(len(part) / 2 / RATE / PIECE_S)
    wide = np.frombuffer(part, "<i2").astype(np.float32)
    opus = webm(np.round(resampled(wide, RATE, 48_000)).astype("<i2").tobytes())
    ways = {"webm/opus": (opus, ""), "samples": (part, "")}
    rows: dict[str, figures.Spread] = {}
    for name, (data, query) in ways.items():
        runs = [await first_partial(port, data, pieces, query) for _ in range(ROUNDS)]
        for event in ("configured", "partial"):
            values = [run[event] for run in runs if event in run]
            if values:
                rows[f"{name}: first {event}"] = figures.spread(values)
    return rows


def curve(memory: list[float], width: int = 60) -> str:
    """Memory over time in one line of eighths."""
    low, high = min(memory), max(memory)
    marks = "▁▂▃▄▅▆▇█"
    step = max(1, len(memory) // width)
    tops = [max(memory[at : at + step]) for at in range(0, len(memory), step)]
    line = "".join(marks[min(7, int(8 * (one - low) / max(1e-9, high - low)))] for one in tops)
    return f"{low:.0f} MB {line} {high:.0f} MB"


def judged(kind: str, job: dict[str, Any], audio_s: float, memory: list[float], segments: int) -> list[str]:
    """What is wrong with an upload; nothing when its figures may be believed."""
    broken = []
    if job["state"] != "done" or abs(job["audio_ms"] - audio_s * 1000) > 1:
        broken.append(f"{kind}: the job is {job['state']}, {job['audio_ms']} ms were heard")
    if not segments:
        broken.append(f"{kind}: nothing is in the transcript")
    if (growth := max(memory) - memory[0]) > MOST_GROWTH_MB:
        broken.append(f"{kind}: the server grew by {growth:.0f} MB")
    return broken


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine did."""

    kind: str
    audio_s: float
    took_s: float
    segments: int
    memory: list[float]
    """Resident MB every ``LOOK_EVERY_S``."""
    containers: dict[str, figures.Spread]
    """Milliseconds from the first byte."""

    @property
    def pace(self) -> float:
        """Times real time."""
        return self.audio_s / self.took_s

    def figures(self) -> dict[str, object]:
        """As they are kept."""
        return {
            "audio_s": self.audio_s,
            "took_s": self.took_s,
            "times_real_time": round(self.pace, 2),
            "segments": self.segments,
            "resident_every_s": LOOK_EVERY_S,
            "resident_mb": [round(one, 1) for one in self.memory],
            "containers_ms": self.containers,
        }


async def run(kind: str, minutes: float, folder: Path, told: figures.Measured) -> Run:
    talk = speech(kind)
    path = folder / f"{kind}.flac"
    audio_s = await asyncio.to_thread(long_file, path, talk, minutes)
    async with server(kind, folder) as port:
        job, took_s, memory, segments = await upload(port, path)
        told.broken += judged(kind, job, audio_s, memory, segments)
        found = {} if kind == "null" else await containers(port, talk)
    return Run(kind=kind, audio_s=audio_s, took_s=took_s, segments=segments, memory=memory, containers=found)


def shown(runs: list[Run]) -> str:
    """The tables for people."""
    rows = [
        (one.kind, *(f"{value:.1f}" for value in (one.audio_s, one.took_s, one.pace, max(one.memory) - one.memory[0])))
        for one in runs
    ]
    parts = [figures.table(("upload", "audio s", "took s", "x real time", "growth MB"), rows), "memory over time:"]
    parts += [f"{one.kind}: {curve(one.memory)}" for one in runs]
    for one in runs:
        if one.containers:
            parts.append(f"\n{one.kind}, ms from the first byte, {ROUNDS} times")
            table = [(way, str(spread.count), *spread.cells()) for way, spread in one.containers.items()]
            parts.append(figures.table(("", "runs", "p50", "p95", "p99", "max"), table))
    return "\n".join(parts)


def drawn(runs: list[Run], name: str, date: str, folder: Path = report.RESULTS) -> list[Path]:
    """The plots: memory over time, speed, and first partials where there were any."""
    talks = [one for one in runs if one.containers]
    ways = sorted({way for one in talks for way in one.containers})
    paths = [
        plot.lines(
            plot.place(f"{name}-memory", date, folder),
            [
                plot.Line(
                    name=f"{one.kind}: {one.audio_s / 60:.0f} minutes in {one.took_s:.1f} s",
                    x=[at * LOOK_EVERY_S for at in range(len(one.memory))],
                    y=one.memory,
                )
                for one in runs
            ],
            title="Memory of the server while it hears a long file",
            x="seconds since the upload began",
            y="resident MB",
        ),
        plot.bars(
            plot.place(f"{name}-speed", date, folder),
            [one.kind for one in runs],
            {"speed": [one.pace for one in runs]},
            title="Uploads: how much faster than real time",
            y="times real time",
            logarithmic=True,
        ),
    ]
    if talks:
        told = {way: [one.containers[way].p50 if way in one.containers else None for one in talks] for way in ways}
        title = f"Spoken at the pace of speech, from the first byte: p50 of {ROUNDS}"
        kinds = [one.kind for one in talks]
        paths.append(plot.bars(plot.place(f"{name}-containers", date, folder), kinds, told, title=title, y="ms"))
    return paths


async def measure(arguments: argparse.Namespace, told: figures.Measured) -> list[Run]:
    with tempfile.TemporaryDirectory() as name:
        runs = [await run(kind, arguments.minutes, Path(name), told) for kind in ("null", *arguments.engine)]
    told.figures = {one.kind: one.figures() for one in runs}
    return runs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="length of the file (60)")
    parser.add_argument("--engine", nargs="*", default=["sphinx", "whisper"], help="engines besides 'null' (both)")
    parser.add_argument("--keep", action="store_true", help="write figures and plots into benchmarks/results/")
    arguments = parser.parse_args()
    given = [f"--minutes {arguments.minutes:g}", *(f"--engine {name}" for name in arguments.engine)]
    told = figures.begin("upload", given)
    runs = asyncio.run(measure(arguments, told))
    name = "-".join(["upload", *arguments.engine])
    for path in drawn(runs, name, told.date) if arguments.keep else ():
        print(f"drawn: {path.name}")
    return figures.finish(told, name, shown(runs), keep=arguments.keep)


if __name__ == "__main__":
    raise SystemExit(main())
