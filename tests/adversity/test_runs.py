"""A handful of randomised runs, and one in which nothing goes wrong; ``make test-adversity`` does hundreds.

A failed one is played again by ``python -m tests.adversity.runs --seed N``.
"""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("faster_whisper", reason="the extra 'whisper' is not installed")

from tests.adversity.arena import eventually
from tests.adversity.runs.__main__ import DIGITS, perform
from tests.adversity.runs.ledger import Died, Ledger
from tests.adversity.runs.node import Node
from tests.adversity.runs.nursery import Nursery
from tests.adversity.runs.plan import Fault, Plan, make, undisturbed
from tests.adversity.runs.site import RESUME_WINDOW_S
from tests.models import tone

MOUNTS = "small_disk"
"""Skips where nothing may be mounted, as nodes with disks of their own want it."""
SEEDS = (77, 87, 105, 154)
"""In all of them a server is killed, ends or has a full disk; one is strict."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tone.make(folder / "tone")
    return folder


async def judged(plan: Plan, models: Path, folder: Path) -> Ledger:
    async with Nursery():
        ledger, complaints = await perform(plan, models, folder)
    assert complaints == [], f"{plan}\nledger: {ledger.write(folder / 'ledger.json')}"
    return ledger


@pytest.mark.slow
async def test_undisturbed_the_words_are_those_that_were_said(models: Path, tmp_path: Path) -> None:
    ledger = await judged(undisturbed(make(26, "alone")), models, tmp_path)
    assert all(one.acked for one in ledger.speaking)
    spoken = {one.stream for one in ledger.speaking}
    assert sum(len(one.shown) for one in ledger.speaking) == sum(row.stream in spoken for row in ledger.rows) > 10
    (file,) = ledger.sending
    assert (file.attempts, file.streams) == (1, [file.stream])
    for viewer in ledger.watching:
        assert len(viewer.shown) == sum(row.interview == viewer.interview for row in ledger.rows) > 5


@pytest.mark.slow
@pytest.mark.usefixtures(MOUNTS)
async def test_runs_from_seeds_keep_every_promise(models: Path, tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as runs:  # one that fails ends the others in order
        judging = [runs.create_task(judged(make(seed, "alone"), models, tmp_path / str(seed))) for seed in SEEDS]
    ledgers = [one.result() for one in judging]
    assert {fault.what for ledger in ledgers for fault in ledger.plan.faults} >= {"kill", "term", "disk_full", "cut"}
    assert any(one.foreign for ledger in ledgers for one in ledger.knocked)
    assert sum(len(one.greeted) > 1 for ledger in ledgers for one in ledger.speaking) >= 4, "speakers came back"
    assert sum(len({final.connection for final in one.shown}) > 1 for ledger in ledgers for one in ledger.watching) >= 3
    assert all(
        any(one.readable for one in ledger.snapshots)
        for ledger in ledgers
        if any(f.what == "kill" for f in ledger.plan.faults)
    )


@pytest.mark.slow
@pytest.mark.usefixtures(MOUNTS)
async def test_rivals_full_disks_and_somebody_who_was_away(models: Path, tmp_path: Path) -> None:
    """Rows 16, 19 and 63: each was drawn by a plan, and each really happens."""
    drawn = next(plan for seed in range(300) if (plan := make(seed, "alone")).leaves and len(plan.voices) == 3)
    faults = (
        Fault(at_s=0.5, what="log_full", whom="node 0", lasts_s=0.8),
        Fault(at_s=0.9, what="usurp", whom="speaker 0", lasts_s=0.3),
        Fault(at_s=1.0, what="crowd", whom="speaker 1", lasts_s=0.5),
        Fault(at_s=1.5, what="tmp_full", whom="node 0", lasts_s=0.8),
    )
    away = tuple(
        msgspec.structs.replace(drawn.leaves[0], at_s=0.1, away_s=away_s) for away_s in (0.5, RESUME_WINDOW_S + 0.8)
    )
    ledger = await judged(msgspec.structs.replace(drawn, faults=faults, leaves=away), models, tmp_path)
    assert ledger.filled == {"log_full": 0, "tmp_full": 0}
    usurped, crowded = (one.stream for one in ledger.speaking[:2])
    codes = [one.code for one in ledger.rivals if one.stream == crowded]
    assert len(codes) == 10
    assert codes.count(4409) >= 8, "the newest wins, and the others are told"
    assert [one.status for one in ledger.rivals if one.stream == usurped] == [101]
    assert min(len(one.greeted) for one in ledger.speaking[:2]) >= 2, "who was sent away came back"
    soon, late = ledger.left
    assert (soon.ended, late.ended) == ("closed", "410")
    assert {one.key for one in soon.shown} <= set(soon.again), "all of the stream is there again"
    assert soon.shown
    assert late.shown
    assert [one.status for one in ledger.late] == [410] * 3


@pytest.mark.slow
@pytest.mark.parametrize("jump", ["ahead", "behind"])
async def test_a_clock_that_stays_wrong_holds_nothing_up(models: Path, tmp_path: Path, jump: str) -> None:
    """Row 65.  What reckoned by the wall clock would wait for an hour, or would have waited for one: hearing, storing,
    and what could not be handed on at first."""
    faults = (
        Fault(at_s=0.8, what="away", whom="webhook", lasts_s=1.0),
        Fault(at_s=1.2, what=jump, whom="node 0"),
        Fault(at_s=1.6, what="cut", whom="line 0"),
    )
    plan = msgspec.structs.replace(undisturbed(make(32, "alone")), faults=faults)
    ledger = await judged(plan, models, tmp_path)
    assert len(ledger.speaking[0].greeted) > 1, "the speaker came back"


@pytest.mark.slow
async def test_a_run_that_loses_something_is_found_out(models: Path, tmp_path: Path) -> None:
    """The whole way, with a real loss: the data is taken away while the node is down."""
    plan = undisturbed(make(32, "alone"))
    wipe = msgspec.structs.replace(plan, faults=(Fault(at_s=3.0, what="wipe", whom="node 0"),))
    async with Nursery():
        _, complaints = await perform(wipe, models, tmp_path)
    assert any(complaint.startswith("I1") for complaint in complaints), complaints


@pytest.mark.slow
async def test_a_node_tells_where_it_is_and_its_clock_jumps(tmp_path: Path) -> None:
    died: list[Died] = []
    model = {"STREAMSRV_ENGINE_NAME": "whisper", "STREAMSRV_ENGINE_MODEL": str(DIGITS)}
    node = Node("node 0", tmp_path, model, clock=time.monotonic, died=died.append)
    async with Nursery():
        await node.prepare()
        await node.start()
        try:
            node.tell_stacks()
            stacks = tmp_path / "node-0.stacks"
            await eventually(lambda: stacks.exists() and "===== tasks" in stacks.read_text(), stacks.exists)
            assert "thread" in stacks.read_text()
            node.jump(3_600)
            await node.term()
        finally:
            await node.kill()
    told = [datetime.fromisoformat(json.loads(line)["time"]) for line in node.log.read_text().splitlines()]
    assert 3_600 <= (told[-1] - told[0]).total_seconds() < 3_700
    assert [(one.wanted, one.code) for one in died] == [(True, 0)]


@pytest.mark.slow
@pytest.mark.usefixtures(MOUNTS)
async def test_a_strict_node_may_write_nowhere_but_to_its_data(tmp_path: Path) -> None:
    model = {"STREAMSRV_ENGINE_NAME": "whisper", "STREAMSRV_ENGINE_MODEL": str(DIGITS)}
    died: list[Died] = []
    node = Node("node 0", tmp_path, model, clock=time.monotonic, died=died.append, strict=True)
    async with Nursery():
        await node.prepare()
        await node.start()
        try:
            assert node._process is not None
            about = Path(f"/proc/{node._process.pid}")
            told = dict(line.split(":\t", 1) for line in (about / "status").read_text().splitlines())
            assert told["Uid"].split() == told["Gid"].split() == ["65534"] * 4
            assert int(told["CapEff"], 16) == 1 << 2, "it may read what root may read, and nothing else"
            mounts = [line.split()[4:6] for line in (about / "mountinfo").read_text().splitlines()]
            modes = {place: options.split(",")[0] for place, options in mounts}
            assert (modes["/"], modes.get("/tmp", "ro"), modes[str(node.data)]) == ("ro", "ro", "rw")
            await node.term()
        finally:
            await node.kill()
    assert node.database
    assert {path.stat().st_uid for path in node.data.rglob("*")} == {65_534}
    assert [(one.wanted, one.code) for one in died] == [(True, 0)]
