"""Every kept conversation goes as it went."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.scenarios import SCENARIOS
from tests.golden.tape import enter, machine_of, read

FOLDER = Path(__file__).parent
TAPES = sorted(FOLDER.glob("*.jsonl"))


def test_every_scenario_is_kept() -> None:
    assert {tape.stem for tape in TAPES} == set(SCENARIOS)


@pytest.mark.parametrize("path", TAPES, ids=lambda path: path.stem)
def test_a_fresh_machine_gives_the_same_effects(path: Path) -> None:
    head, calls = read(path)
    machine = machine_of(head)
    for number, call in enumerate(calls, 2):
        assert tuple(enter(machine, call)) == call.gave, f"line {number}: {head.about}"
