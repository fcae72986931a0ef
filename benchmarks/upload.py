"""Files and containers: ``python -m benchmarks.upload [--minutes 60] [--engine sphinx]``.

An upload as long as asked for is heard by the engine that hears nothing (the way of the audio alone) and by a real one:
times real time, and the server's memory once a second while it goes.  Then somebody speaks as a browser does, WebM with
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
import numpy as np
import numpy.typing as npt
import soundfile

from benchmarks import figures
from benchmarks.served import process
from tests.support.recordings import webm
from tests.support.speech import silence, voice

SPEECH = Path(__file__).parents[1] / "tests" / "data" / "speech"
RATE = 16_000
PIECE_S = 0.1
"""Seconds a browser's recorder puts into each message."""
ROUNDS = 5
MOST_GROWTH_MB = 128.0
"""Resident growth of the server beyond which its memory follows the file's length."""
WITHIN_S = 3_600.0
RESIDENT = re.compile(r"^process_resident_memory_bytes (\S+)$", re.MULTILINE)


def resampled(samples: npt.NDArray[np.float32], rate: int, wanted: int) -> npt.NDArray[np.float64]:
    """Straight lines between samples: good enough to be spoken."""
    at = np.arange(len(samples) * wanted // rate) * (rate / wanted)
    return np.asarray(np.interp(at, np.arange(len(samples)), samples), np.float64)


def speech() -> bytes:
    """Recordings of people where there are any, else what a detector takes for them; s16le, mono, 16 kHz."""
    found = sorted(path for path in SPEECH.glob("*") if path.suffix in (".wav", ".flac"))
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
        async with process(
            *("streamsrv", "serve", "--port", "0", "--engine", kind, "--data-dir", str(folder / kind))
        ) as port:
            yield port


async def resident_mb(http: aiohttp.ClientSession, url: str) -> float:
    async with http.get(f"{url}/metrics") as answer:
        found = RESIDENT.search(await answer.text())
    return float(found[1]) / 2**20 if found else 0.0


async def upload(port: int, path: Path) -> tuple[dict[str, Any], float, list[float], int]:
    """The job when it is over, its seconds, memory once a second, and how many segments have words."""
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
            await asyncio.sleep(1.0)
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


async def measure(arguments: argparse.Namespace, told: figures.Measured) -> str:
    talk = speech()
    rows: list[tuple[str, ...]] = []
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "long.flac"
        audio_s = long_file(path, talk, arguments.minutes)
        for kind in ("null", *arguments.engine):
            async with server(kind, folder) as port:
                job, took_s, memory, segments = await upload(port, path)
                growth = max(memory) - memory[0]
                rows.append((kind, f"{audio_s:.0f}", f"{took_s:.1f}", f"{audio_s / took_s:.1f}", f"{growth:.0f}"))
                lines.append(f"{kind}: {curve(memory)}")
                told.figures[f"upload {kind}"] = {
                    "audio_s": audio_s,
                    "took_s": took_s,
                    "times_real_time": round(audio_s / took_s, 2),
                    "segments": segments,
                    "resident_mb": [round(one, 1) for one in memory],
                }
                if job["state"] != "done" or abs(job["audio_ms"] - audio_s * 1000) > 1:
                    told.broken.append(f"{kind}: the job is {job['state']}, {job['audio_ms']} ms were heard")
                if not segments:
                    told.broken.append(f"{kind}: nothing is in the transcript")
                if growth > MOST_GROWTH_MB:
                    told.broken.append(f"{kind}: the server grew by {growth:.0f} MB")
                if kind != "null":
                    found = await containers(port, talk)
                    told.figures[f"containers {kind}"] = found
                    lines.append(f"\n{kind}, ms from the first byte, {ROUNDS} times")
                    table = [(way, str(one.count), *one.cells()) for way, one in found.items()]
                    lines.append(figures.table(("", "runs", "p50", "p95", "p99", "max"), table))
    head = ("upload", "audio s", "took s", "x real time", "growth MB")
    return "\n".join([figures.table(head, rows), "memory, once a second:", *lines])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="length of the file (60)")
    parser.add_argument("--engine", nargs="*", default=["sphinx"], help="engines that are measured (sphinx)")
    parser.add_argument("--keep", action="store_true", help="write benchmarks/results/upload.json")
    arguments = parser.parse_args()
    given = [f"--minutes {arguments.minutes:g}", *(f"--engine {name}" for name in arguments.engine)]
    told = figures.begin("upload", given)
    return figures.finish(told, "upload", asyncio.run(measure(arguments, told)), keep=arguments.keep)


if __name__ == "__main__":
    raise SystemExit(main())
