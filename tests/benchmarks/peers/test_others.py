"""What others use of the machine, read from files as the kernel writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.peers.others import Others

HERTZ = os.sysconf("SC_CLK_TCK")


def write(proc: Path, *, busy: int, used: dict[int, tuple[int, int]]) -> None:
    """``used``: for each process its parent and its ticks."""
    (proc / "stat").write_text(f"cpu {busy} 0 0 999 999 0 0 0 0 0\ncpu0 1 1 1\n")
    for number, (parent, ticks) in used.items():
        (proc / str(number)).mkdir(exist_ok=True)
        zeros = "0 " * 9
        (proc / str(number) / "stat").write_text(f"{number} (a) b c) S {parent} {zeros}{ticks} 0 0 0 20 0\n")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("benchmarks.peers.others.time.monotonic", lambda: now[0])
    return now


def test_what_we_and_our_servers_use_is_not_others(tmp_path: Path, clock: list[float]) -> None:
    me = os.getpid()
    write(tmp_path, busy=0, used={me: (1, 0), 900_001: (me, 0), 900_002: (900_001, 0), 900_003: (1, 0)})
    seen = Others(tmp_path)
    clock[0] += 10
    used = {me: (1, HERTZ), 900_001: (me, 4 * HERTZ), 900_002: (900_001, 3 * HERTZ), 900_003: (1, 5 * HERTZ)}
    write(tmp_path, busy=13 * HERTZ, used=used)
    assert seen.cores() == 0.5


def test_where_the_kernel_tells_nothing_nobody_is_seen(tmp_path: Path, clock: list[float]) -> None:
    seen = Others(tmp_path)
    clock[0] += 1
    assert seen.cores() == 0
