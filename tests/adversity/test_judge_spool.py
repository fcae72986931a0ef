"""The judge looks into spools: what was shown from one is there, or in the store, when its process has died."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from streamsrv.events import Final
from streamsrv.runtime.spooling import lines
from streamsrv.stores.base import StreamKey
from tests.adversity.ledgers import ROWS, good, handed, shown
from tests.adversity.runs.judge import judge
from tests.adversity.runs.ledger import Greeted, Ledger, Row, Snapshot, Spooled
from tests.adversity.runs.spooled import spooled_in


def in_spool(row: Row) -> Spooled:
    return Spooled(stream=row.stream, epoch=row.epoch, channel=0, segment=row.segment, text=row.text)


def from_spool() -> Ledger:
    """A run whose first final was shown from a spool before a process was killed; the store was away."""
    ledger = good()
    ledger.speaking[0].shown[0] = shown(ROWS[0], 2.5, durable="spool")
    ledger.snapshots = [Snapshot(at=3.5, why="node 0 killed", spooled=[in_spool(ROWS[0])], readable=False)]
    return ledger


def test_a_final_in_a_spool_can_be_read() -> None:
    assert judge(from_spool()) == []
    stored = from_spool()
    stored.snapshots[0] = msgspec.structs.replace(stored.snapshots[0], spooled=[])
    assert judge(stored) == [], "it was stored by the same epoch, and the spool had let it go"


def test_a_spooled_final_that_a_later_epoch_replaced_need_not_be_there() -> None:
    ledger = from_spool()
    ledger.snapshots[0] = Snapshot(at=3.5, why="node 0 killed", restarts={"st-1": [40_320]}, epochs={"st-1": 2})
    assert not any("spool" in complaint for complaint in judge(ledger))
    _greeted_anew(ledger, at=3.0)
    ledger.snapshots[0] = Snapshot(at=3.5, why="node 0 killed", readable=False)
    assert judge(ledger) == []


def _greeted_anew(ledger: Ledger, at: float) -> None:
    """The stream went on in epoch 2, which heard the first words again."""
    ledger.speaking[0].greeted.append(Greeted(at=at, connection="s-2", stream="st-1", epoch=2, resume_at=0))
    ledger.rows[0] = msgspec.structs.replace(ROWS[0], epoch=2)
    ledger.handed[0] = handed(ledger.rows[0])


@pytest.mark.parametrize("readable", [True, False])
def test_a_spooled_final_that_is_gone_when_its_process_dies_is_missed(readable: bool) -> None:
    """Also when it comes back, because the client said it again."""
    ledger = from_spool()
    _greeted_anew(ledger, at=4.0)
    known = Snapshot(at=3.5, why="node 0 killed", restarts={"st-1": [40_320]}, epochs={"st-1": 1})
    ledger.snapshots[0] = msgspec.structs.replace(known, readable=readable)
    missing = "I6: node 0 killed, and segment ('st-1', 0, 0), shown from a spool, is neither there nor in the store"
    assert missing in judge(ledger)
    ledger.snapshots[0] = msgspec.structs.replace(ledger.snapshots[0], spooled=[in_spool(ROWS[0])])
    assert missing not in judge(ledger)
    damaged = msgspec.structs.replace(in_spool(ROWS[0]), text="one")
    ledger.snapshots[0] = msgspec.structs.replace(ledger.snapshots[0], spooled=[damaged])
    assert missing in judge(ledger)


def test_a_spool_is_read_as_the_next_start_would(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    finals = [
        Final(
            channel=0, utterance=0, segment=row.segment, start=row.start, stop=row.stop, text=row.text, cause="vad",
            endpoint=True, engine="none",
        )
        for row in ROWS
    ]  # fmt: skip
    key = StreamKey(interview="talk", stream="st-1", epoch=1)
    bodies = [lines.encode(lines.Entry(key=key, at_ms=0, final=final)) for final in finals]
    data = b"".join(lines.line(number, body) for number, body in enumerate(bodies))
    (folder / "0a-st-1-1-0.spool").write_bytes(data[:-2])
    (folder / "0a-st-1-0-0.spool.aside").write_bytes(data)
    assert list(spooled_in(tmp_path)) == [in_spool(row) for row in ROWS[:2]], "the last line was cut short"
