"""The judge of those who come and go: it accepts what is right, and notices each thing that is not."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from tests.adversity.runs.comers import judge_comers
from tests.adversity.runs.ledger import Greeted, Handed, Knocked, Leaving, Ledger, Rival, Row, Shown, Speaking
from tests.adversity.runs.plan import Leave, Plan
from tests.adversity.runs.speech import Speech, Utterance

SPEECH = Speech(lead_s=0.5, channels=((Utterance(words=("one", "two"), pause_s=1.0),),))


def good() -> Ledger:
    """Two rivals, somebody who came back in time, somebody who came too late, and a reader."""
    leave = Leave(at_s=0.1, interview="i", away_s=1.0, speech=SPEECH)
    rows = [
        Row(interview="i", stream=stream, epoch=1, channel=0, segment=0, text="one two", start=8_000, stop=24_000)
        for stream in ("soon", "late")
    ]
    shown = [
        Shown(at=1, connection="s", again=False, stream=name, channel=0, segment=0, text="one two", durable="store")
        for name in ("soon", "late")
    ]
    return Ledger(
        plan=Plan(seed=0, shape="alone", spoken="tones", voices=(), faults=(), leaves=(leave, leave)),
        speaking=[
            Speaking(
                greeted=[
                    Greeted(at=at, connection="s", stream="st", epoch=e, resume_at=0) for at, e in ((0, 1), (3, 4))
                ]
            )
        ],
        rivals=[Rival(at=2, stream="st", status=101, epoch=epoch, code=4409) for epoch in (2, 3)],
        left=[
            Leaving(
                stream="soon", shown=shown[:1], acked=23_000, resumed_at=13_400, again=[shown[0].key], ended="closed"
            ),
            Leaving(stream="late", shown=shown[1:], acked=23_000, ended="410", away_s=8.0),
        ],
        late=[Knocked(at=9, status=410)],
        rows=rows,
        consumed=[
            Handed(sink="inbox", key="", kind="final", interview="i", stream=row.stream, epoch=1, text=row.text)
            for row in rows
        ],
    )


def test_what_is_right_is_accepted() -> None:
    assert list(judge_comers(good())) == []


def _rival_with_an_epoch_twice(ledger: Ledger) -> None:
    ledger.rivals.append(Rival(at=2, stream="st", status=101, epoch=4))


def _rival_hears_of_an_end_that_is_none(ledger: Ledger) -> None:
    ledger.rivals.append(Rival(at=2, stream="st", status=410))


def _rival_is_not_known(ledger: Ledger) -> None:
    ledger.rivals.append(Rival(at=4, stream="st", status=404))


def _gone_too_early(ledger: Ledger) -> None:
    ledger.left[1].away_s = 3.0


def _never_answered(ledger: Ledger) -> None:
    ledger.left[1].ended = ""


def _back_at_too_early_a_place(ledger: Ledger) -> None:
    ledger.left[0].resumed_at = 13_399


def _half_a_stream(ledger: Ledger) -> None:
    ledger.left[0].again = []


def _acknowledged_and_lost(ledger: Ledger) -> None:
    ledger.rows = [row for row in ledger.rows if row.stream != "late"]


def _said_again_and_lost(ledger: Ledger) -> None:
    ledger.left[0].acked = 0
    ledger.rows = [msgspec.structs.replace(ledger.rows[0], text="one"), *ledger.rows[1:]]


def _an_ended_stream_opens(ledger: Ledger) -> None:
    ledger.late.append(Knocked(at=9, status=101))


def _no_effect(ledger: Ledger) -> None:
    ledger.consumed = (ledger.consumed or [])[:1]


def _wrong_effect(ledger: Ledger) -> None:
    ledger.consumed = [Handed(sink="inbox", key="", kind="final", interview="i", stream="soon", epoch=1, text="three")]


def _effect_of_nothing(ledger: Ledger) -> None:
    ledger.rows = [row for row in ledger.rows if row.stream == "soon"]
    ledger.left.pop()
    ledger.plan = Plan(seed=0, shape="alone", spoken="tones", voices=(), faults=(), leaves=ledger.plan.leaves[:1])


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (_rival_with_an_epoch_twice, "I2: 2 connections to st had the epoch 4"),
        (_rival_hears_of_an_end_that_is_none, "rival: "),
        (_rival_is_not_known, "rival: "),
        (_gone_too_early, "leave: late was gone after 3.00 s"),
        (_never_answered, "leave: nobody told"),
        (_back_at_too_early_a_place, "leave: soon was acknowledged to 23000"),
        (_half_a_stream, "leave: ('soon', 0, 0) was shown"),
        (_acknowledged_and_lost, "leave: late is ; one two was acknowledged"),
        (_said_again_and_lost, "leave: soon was said again to its end and is one"),
        (_an_ended_stream_opens, "late: "),
        (_no_effect, "I3: segment ('late', 0, 0) had no effect"),
        (_wrong_effect, "I3: segment ('soon', 0, 0) is 'one two'"),
        (_effect_of_nothing, "I3: segment ('late', 0, 0) had an effect"),
    ],
)
def test_each_fault_is_noticed(spoil: Callable[[Ledger], None], complaint: str) -> None:
    ledger = good()
    spoil(ledger)
    assert any(one.startswith(complaint) for one in judge_comers(ledger)), list(judge_comers(ledger))
