"""How fast files are decoded in the cage, how much memory that takes, and how long after a container's first bytes its
first samples come.

``python -m benchmarks.decode [--seconds N] [--dry]``: ``--dry`` keeps no file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import report
from streamsrv.audio.decode import Cage
from tests.audio import corpus
from tests.audio.cages import watched

OPENINGS = 21
"""Containers opened for the median of the first samples."""
KINDS = {
    "wav": ("wav", "pcm_s16le"),
    "flac": ("flac", "flac"),
    "ogg-opus": ("ogg", "libopus"),
    "mp3": ("mp3", "libmp3lame"),
    "m4a": ("ipod", "aac"),
    "webm-opus": ("webm", "libopus"),
}
LIVE = ("wav", "flac", "ogg-opus", "webm-opus")


async def file_row(cage: Cage, path: Path, seconds: int) -> dict[str, float]:
    """One file from end to end, its process with it."""
    began = time.perf_counter()
    async with await cage.open_file(path) as decoding:
        pieces, peak, failure = await watched(decoding)
        took = time.perf_counter() - began
        layout = decoding.layout
    if failure is not None:
        raise failure
    heard = sum(map(len, pieces)) / 2 / layout.channels / layout.rate_hz
    if abs(heard - seconds) > 0.2:
        raise SystemExit(f"{path.name}: {heard:.2f} s came out of {seconds} s")
    return {"times_real_time": round(heard / took), "seconds": round(took, 3), "peak_mb": round(peak, 1)}


async def live_row(cage: Cage, data: bytes, seconds: int) -> dict[str, float]:
    """Milliseconds from the first second of a container to its first samples, in a process that is up."""
    head = data[: len(data) // seconds]
    waits = []
    for _ in range(OPENINGS):
        async with cage.open_live() as live:
            began = time.perf_counter()
            await live.feed(head)
            await live.read()
            waits.append((time.perf_counter() - began) * 1_000)
    return {"first_samples_ms": round(statistics.median(waits), 2), "worst_ms": round(max(waits), 2)}


async def measure(seconds: int) -> dict[str, dict[str, float]]:
    """All rows."""
    samples = corpus.sound(48_000, 1, seconds)
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with Cage() as cage:
            for name, (container, codec) in KINDS.items():
                data = await asyncio.to_thread(corpus.coded, samples, 48_000, container, codec)
                path = Path(folder, name)
                await asyncio.to_thread(path.write_bytes, data)
                await asyncio.sleep(1)  # the next process starts meanwhile, as on a server that is not busy
                rows[name] = await file_row(cage, path, seconds)
                if name in LIVE:
                    rows[name] |= await live_row(cage, data, seconds)
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="length of each recording")
    parser.add_argument("--dry", action="store_true", help="keep no file")
    chosen = parser.parse_args(arguments)
    before = report.gauge()
    rows = asyncio.run(measure(chosen.seconds))
    for name, row in rows.items():
        print(f"{name:12}", *(f"{key} {value:g}" for key, value in row.items()), sep="  ")
    if not chosen.dry:
        kept = {
            "machine": report.machine(),
            "gauge_ms": [before, report.gauge()],
            "seconds": chosen.seconds,
            "rows": rows,
        }
        report.RESULTS.mkdir(exist_ok=True)
        (report.RESULTS / "decode.json").write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
