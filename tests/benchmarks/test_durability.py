"""The durability benchmark in small: its guards hold on the real server."""

from __future__ import annotations

import json

import msgspec
import pytest

from benchmarks import durability
from benchmarks.figures import Spread

TINY = durability.Plan(speakers=2, breaks=2, sessions=2, seconds=2.0, pairs=1, cycles=10)


@pytest.mark.slow
@pytest.mark.parametrize("part", durability.PARTS)
async def test_every_part_runs_and_its_guards_hold(part: str) -> None:
    work = {"resume": durability.resume, "cost": durability.cost, "cycles": durability.cycles}[part]
    figures, broken = await work(TINY)
    assert broken == []
    assert json.dumps(msgspec.to_builtins(figures))
    assert durability.shown({part: figures})
    spreads = [value for value in figures.values() if isinstance(value, Spread)]
    assert all(spread.count for spread in spreads)
