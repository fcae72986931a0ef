"""A randomised run of two nodes, with what can befall only them: ``tests/adversity/runs`` does hundreds."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("faster_whisper", reason="the extra 'whisper' is not installed")

from tests.adversity.runs.__main__ import perform
from tests.adversity.runs.nursery import Nursery
from tests.adversity.runs.plan import Fault, make, undisturbed
from tests.adversity.runs.services import Services
from tests.models import tone


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("sink", "what"), [("redis_streams", "kill"), ("kafka", "rewind")])
async def test_ways_clocks_the_webhooks_line_and_a_reader(tmp_path: Path, sink: str, what: str) -> None:
    """Rows 58 and 65, and the lines from the balancer to a node and from a node to the webhook."""
    tone.make(tmp_path / "tone")
    plan = undisturbed(make(3, "pair"))
    faults = (
        Fault(at_s=0.8, what="ahead", whom="node 0", lasts_s=3.0),
        Fault(at_s=1.0, what="cut", whom="way 0"),
        Fault(at_s=1.5, what="refuse", whom="webhook", lasts_s=1.0),
        Fault(at_s=2.0, what="stall", whom="way 1", lasts_s=0.8),
        Fault(at_s=3.0, what=what, whom=f"consumer {sink}"),
    )
    plan = msgspec.structs.replace(plan, faults=faults)
    async with Nursery(), Services(tmp_path / "services") as services:
        ledger, complaints = await perform(plan, tmp_path, tmp_path / "run", services)
    assert complaints == [], f"ledger: {ledger.write(tmp_path / 'ledger.json')}"
    assert ledger.consumed is not None
    assert len(ledger.consumed) == len(ledger.rows) > 10
    assert ledger.consumer_lives >= 3, "it was killed in the run and once more after it"
    assert sum(len(one.greeted) > 1 for one in ledger.speaking) >= 1, "the way to their node was cut"
    (log,) = (tmp_path / "run").rglob("node-0.log")
    told = [datetime.fromisoformat(json.loads(line)["time"]) for line in log.read_text().splitlines()]
    assert (max(told) - min(told)).total_seconds() > 3_500, "its clock was an hour ahead"
