"""A handful of randomised runs, and one in which nothing goes wrong; ``make test-adversity`` does hundreds.

A failed one is played again by ``python -m tests.adversity.runs --seed N``.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("faster_whisper", reason="the extra 'whisper' is not installed")

from tests.adversity.runs.__main__ import perform
from tests.adversity.runs.ledger import Ledger
from tests.adversity.runs.plan import Fault, Plan, make, undisturbed
from tests.models import tone

SEEDS = (26, 32, 64, 73)
"""Short ones; among them SIGKILL, SIGTERM and a full disk."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tone.make(folder / "tone")
    return folder


async def judged(plan: Plan, models: Path, folder: Path) -> Ledger:
    ledger, complaints = await perform(plan, models, folder)
    assert complaints == [], f"{plan}\nledger: {ledger.write(folder / 'ledger.json')}"
    return ledger


@pytest.mark.slow
async def test_undisturbed_the_words_are_those_that_were_said(models: Path, tmp_path: Path) -> None:
    ledger = await judged(undisturbed(make(3, "alone")), models, tmp_path)
    assert all(one.acked for one in ledger.speaking)
    assert sum(len(one.shown) for one in ledger.speaking) == len(ledger.rows) > 10


@pytest.mark.slow
async def test_runs_from_seeds_keep_every_promise(models: Path, tmp_path: Path) -> None:
    ledgers = await asyncio.gather(*(judged(make(seed, "alone"), models, tmp_path / str(seed)) for seed in SEEDS))
    assert {fault.what for ledger in ledgers for fault in ledger.plan.faults} >= {"kill", "term", "disk_full", "cut"}
    assert sum(len(one.greeted) > 1 for ledger in ledgers for one in ledger.speaking) >= 4, "speakers came back"
    assert all(ledger.snapshots for ledger in ledgers if any(f.what == "kill" for f in ledger.plan.faults))


@pytest.mark.slow
async def test_a_run_that_loses_something_is_found_out(models: Path, tmp_path: Path) -> None:
    """The whole way, with a real loss: the data is taken away while the node is down."""
    plan = undisturbed(make(32, "alone"))
    wipe = msgspec.structs.replace(plan, faults=(Fault(at_s=1.5, what="wipe", whom="node 0"),))
    _, complaints = await perform(wipe, models, tmp_path)
    assert any(complaint.startswith("I1") for complaint in complaints), complaints
