"""The upload benchmark in small: what it draws, and guards that can fail."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
import pytest

from benchmarks import figures, upload
from tests.benchmarks.test_plot import size_of

DONE = {"state": "done", "audio_ms": 60_000}


@pytest.mark.slow
async def test_a_short_file_is_measured_told_and_drawn(tmp_path: Path) -> None:
    told = figures.begin("upload", [])
    runs = await upload.measure(argparse.Namespace(minutes=0.2, engine=[]), told)
    assert told.broken == []
    (null,) = runs
    assert null.segments > 0
    assert null.pace > 1
    assert len(null.memory) >= 2
    assert "null" in upload.shown(runs)
    assert [path.name for path in upload.drawn(runs, "upload", "2026-01-02", tmp_path)] == [
        "upload-memory-2026-01-02.png",
        "upload-speed-2026-01-02.png",
    ]
    talking = msgspec.structs.replace(null, containers={"samples: first partial": figures.spread([400.0, 500.0])})
    paths = upload.drawn([null, talking], "both", "2026-01-02", tmp_path)
    assert paths[-1].name == "both-containers-2026-01-02.png"
    assert [size_of(path) for path in paths] == [(770, 396)] * 3


@pytest.mark.parametrize(
    ("job", "memory", "segments", "broken"),
    [
        (DONE, [50.0, 60.0], 3, ""),
        (DONE | {"state": "failed"}, [50.0], 3, "the job is failed"),
        (DONE | {"audio_ms": 59_000}, [50.0], 3, "59000 ms were heard"),
        (DONE, [50.0], 0, "nothing is in the transcript"),
        (DONE, [50.0, 999.0, 50.0], 3, "the server grew by 949 MB"),
    ],
)
def test_guards_see_what_is_wrong(job: dict[str, object], memory: list[float], segments: int, broken: str) -> None:
    found = upload.judged("null", job, 60.0, memory, segments)
    assert len(found) == bool(broken)
    assert broken in "".join(found)
