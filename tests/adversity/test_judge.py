"""The judge of the runs finds what is wrong: one doctored ledger for each way to break a promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.adversity.ledgers import HEARD, ROWS, change, good, handed, shown
from tests.adversity.runs.judge import distance, judge
from tests.adversity.runs.ledger import (
    Acked,
    Died,
    Ledger,
    Row,
    read,
)


def test_a_good_run_is_left_alone() -> None:
    assert judge(good()) == []
    twice = good()
    twice.handed.insert(2, twice.handed[0])
    twice.speaking[0].shown.append(shown(ROWS[0], 5.0, connection="s-2", again=True))
    assert judge(twice) == [], "a sink may get a final again, a new connection may tell one again"


def test_what_was_shown_from_a_spool_may_be_replaced() -> None:
    ledger = good()
    ledger.speaking[0].shown[2] = shown(ROWS[2], 6.0, text="four", durable="spool")
    ledger.watching[0].shown[2] = shown(ROWS[2], 6.0, text="", durable="spool")
    ledger.watching[0].shown.append(shown(ROWS[2], 6.5))
    assert judge(ledger) == []


def test_a_file_that_got_no_answer_may_have_been_taken_or_not() -> None:
    ledger = good()
    ledger.sending[0].attempts = 2
    assert judge(ledger) == []
    again = msgspec.structs.replace(HEARD, stream="st-3")
    ledger.sending[0].streams.append("st-3")
    ledger.rows.append(again)
    ledger.order["talk"].insert(0, again.key)
    ledger.handed.insert(0, handed(again))
    for one in ledger.watching:
        one.shown.append(shown(again, 8.0))
    assert judge(ledger) == []


def test_what_a_sink_is_given_again_or_a_later_epoch_replaced_may_come_at_any_time() -> None:
    ledger = good()
    replaced = msgspec.structs.replace(handed(ROWS[1]), epoch=0, key="st-1:0:1", text="thirty")
    ledger.handed[1:1] = [replaced]
    ledger.handed += [ledger.handed[0], msgspec.structs.replace(ledger.handed[-1])]
    assert judge(ledger) == []


def test_an_interview_may_open_and_be_completed_again() -> None:
    ledger = good()
    early = msgspec.structs.replace(ledger.handed[-1], key="talk:0", revision=0)
    ledger.handed.insert(2, early)
    ledger.handed.append(early)
    assert judge(ledger) == []


def test_a_ledger_survives_its_file(tmp_path: Path) -> None:
    assert read(good().write(tmp_path / "ledger.json")) == good()


def _not_stored(ledger: Ledger) -> None:
    del ledger.rows[2], ledger.handed[2]
    ledger.speaking[0].closed_finals = 2


def _otherwise(ledger: Ledger) -> None:
    ledger.speaking[0].shown[1] = shown(ROWS[1], 4.5, text="thirty")


def _spool_lost(ledger: Ledger) -> None:
    ledger.speaking[0].shown[2] = shown(ROWS[2], 6.0, durable="spool")
    _not_stored(ledger)


def _watched_not_stored(ledger: Ledger) -> None:
    row = change(ROWS[2], segment=3)
    assert isinstance(row, Row)
    ledger.watching[0].shown.append(shown(row, 7.0))


def _not_watched(ledger: Ledger) -> None:
    del ledger.watching[1].shown[2]


def _watched_twice(ledger: Ledger) -> None:
    ledger.watching[1].shown.append(shown(ROWS[1], 7.0, connection="s-10"))


def _stored_twice(ledger: Ledger) -> None:
    ledger.rows.append(ROWS[1])


def _segment_missing(ledger: Ledger) -> None:
    ledger.rows[2] = Row(**{**msgspec.structs.asdict(ROWS[2]), "segment": 3})


def _shown_twice(ledger: Ledger) -> None:
    ledger.speaking[0].shown.append(shown(ROWS[1], 6.5))


def _wrong_count(ledger: Ledger) -> None:
    ledger.speaking[0].closed_finals = 4


def _not_handed(ledger: Ledger) -> None:
    del ledger.handed[1]


def _handed_otherwise(ledger: Ledger) -> None:
    ledger.handed[1] = msgspec.structs.replace(ledger.handed[1], text="thirty")


def _key_reused(ledger: Ledger) -> None:
    ledger.handed.append(msgspec.structs.replace(ledger.handed[0], text="else", epoch=0))


def _too_much_handed(ledger: Ledger) -> None:
    ledger.handed.append(msgspec.structs.replace(ledger.handed[0], segment=9, key="st-1:1:9"))


def _end_not_handed(ledger: Ledger) -> None:
    del ledger.handed[-1]


def _out_of_order(ledger: Ledger) -> None:
    ledger.handed[0], ledger.handed[1] = ledger.handed[1], ledger.handed[0]


def _across_streams(ledger: Ledger) -> None:
    ledger.handed[2], ledger.handed[3] = ledger.handed[3], ledger.handed[2]


def _ends_turned(ledger: Ledger) -> None:
    ledger.handed.append(msgspec.structs.replace(ledger.handed[-1], key="talk:0", revision=0))


def _final_behind_an_end_that_comes_again(ledger: Ledger) -> None:
    end = ledger.handed.pop()
    ledger.handed[3:3] = [end]
    ledger.handed.append(end)


def _final_after_end(ledger: Ledger) -> None:
    ledger.handed.insert(0, ledger.handed.pop())


def _overlap(ledger: Ledger) -> None:
    ledger.rows[1] = Row(**{**msgspec.structs.asdict(ROWS[1]), "start": 37_000})


def _word_uncovered(ledger: Ledger) -> None:
    ledger.rows[2] = Row(**{**msgspec.structs.asdict(ROWS[2]), "stop": 80_000})


def _acked_before_given(ledger: Ledger) -> None:
    ledger.speaking[0].acked[0] = Acked(at=3.0, stream="st-1", position=40_320, given=40_000)


def _lost_by_the_kill(ledger: Ledger) -> None:
    ledger.snapshots[0] = msgspec.structs.replace(ledger.snapshots[0], rows=[])


def _ack_lost_by_the_kill(ledger: Ledger) -> None:
    ledger.snapshots[0] = msgspec.structs.replace(ledger.snapshots[0], restarts={"st-1": [38_400]})


def _acked_word_lost(ledger: Ledger) -> None:
    ledger.speaking[0].shown[0] = shown(ROWS[0], 3.9)
    _lost_by_the_kill(ledger)


def _died_by_itself(ledger: Ledger) -> None:
    ledger.died.append(Died(at=5.0, name="node 0", code=-11, wanted=False))


def _ended_badly(ledger: Ledger) -> None:
    ledger.died[1] = Died(at=9.0, name="node 0", code=1, wanted=True)


def _word_doubled(ledger: Ledger) -> None:
    ledger.rows[1] = Row(**{**msgspec.structs.asdict(ROWS[1]), "text": "three three"})
    ledger.speaking[0].shown[1] = ledger.watching[0].shown[1] = ledger.watching[1].shown[2] = shown(ledger.rows[1], 4.5)
    ledger.handed[1] = handed(ledger.rows[1])


def _speaker_failed(ledger: Ledger) -> None:
    ledger.speaking[0].ended = "gave_up: the connection did not come back"


def _file_lost(ledger: Ledger) -> None:
    ledger.sending[0].ended = "lost"


def _file_without_stream(ledger: Ledger) -> None:
    ledger.sending[0].streams = []


def _file_heard_twice(ledger: Ledger) -> None:
    ledger.sending[0].streams.append("st-3")


def _file_broken_off(ledger: Ledger) -> None:
    ledger.rows[3] = msgspec.structs.replace(HEARD, text="gold", stop=20_000)


def _word_of_file_doubled(ledger: Ledger) -> None:
    ledger.rows[3] = msgspec.structs.replace(HEARD, text="gold red red")


def _came_up(ledger: Ledger) -> None:
    ledger.refused[0] = msgspec.structs.replace(ledger.refused[0], code=0)


def _silent(ledger: Ledger) -> None:
    ledger.refused[0] = msgspec.structs.replace(ledger.refused[0], said="Traceback")


def _touched(ledger: Ledger) -> None:
    ledger.refused[0] = msgspec.structs.replace(ledger.refused[0], untouched=False)


def _let_in(ledger: Ledger) -> None:
    ledger.knocked[0] = msgspec.structs.replace(ledger.knocked[0], status=101)


def _left_over(ledger: Ledger) -> None:
    ledger.left_over.append("job job-1 is still open")


def _complaint(ledger: Ledger) -> None:
    ledger.complaints.append("node 0: Traceback")


@pytest.mark.parametrize(
    ("doctor", "sentence"),
    [
        (_not_stored, "I1: segment ('st-1', 0, 2) was shown at 6.00 s (store) and is not stored"),
        (_otherwise, "I1: segment ('st-1', 0, 1) was shown as 'thirty' and stored as 'three'"),
        (_spool_lost, "I1: segment ('st-1', 0, 2), 'four five', was shown at 6.00 s (spool) and is nowhere stored"),
        (_watched_not_stored, "I1: segment ('st-1', 0, 3) was shown at 7.00 s (store) and is not stored"),
        (_not_watched, "I1: segment ('st-1', 0, 1) was not shown to viewer 1"),
        (_watched_twice, "I2: viewer 1 was shown segment ('st-1', 0, 1) again at 7.00 s"),
        (_stored_twice, "I2: segment ('st-1', 0, 1) is stored 2 times"),
        (_segment_missing, "I2: st-1 channel 0 has the segments [0, 1, 3]"),
        (_shown_twice, "I2: speaker 0 was shown ('st-1', 0, 1) 2 times by s-1"),
        (_wrong_count, "I2: speaker 0 was told of 4 finals at the end, 3 are stored"),
        (_not_handed, "I3: segment ('st-1', 0, 1) is not in kafka"),
        (_handed_otherwise, "I3: segment ('st-1', 0, 1) is 'thirty' in kafka and 'three' in the store"),
        (_key_reused, "I3: key st-1:1:0 stands for two different events in kafka"),
        (_too_much_handed, "I3: segment ('st-1', 0, 9) is in kafka and not in the store"),
        (_end_not_handed, "I3: the end of talk is not in kafka"),
        (_out_of_order, "I4: st-1:1:0 came after segment 1 of its channel into kafka"),
        (_across_streams, "I4: st-1:1:2 came after st-2:1:0, which was stored later, into kafka"),
        (_ends_turned, "I4: revision 0 of talk came after 1 into kafka"),
        (_final_behind_an_end_that_comes_again, "I4: a final of talk came after its end into kafka"),
        (_final_after_end, "I4: a final of talk came after its end into kafka"),
        (_overlap, "I5: segments 0 and 1 of st-1 share samples"),
        (_word_uncovered, "I5: speaker 0: the word at 5.00 s of channel 0 is in no stored final"),
        (_acked_before_given, "I5: speaker 0: 40320 was acknowledged when 40000 had been given"),
        (_lost_by_the_kill, "I6: node 0 killed, and segment ('st-1', 0, 0), shown before, cannot be read"),
        (_ack_lost_by_the_kill, "I6: node 0 killed, and st-1 was acknowledged to 40320 but knows [38400]"),
        (
            _acked_word_lost,
            "I6: node 0 killed, and the word at 1.00 s of channel 0 of speaker 0, acknowledged, is not stored",
        ),
        (_died_by_itself, "I7: node 0 ended by itself at 5.00 s with -11"),
        (_ended_badly, "I7: node 0 was asked to stop at 9.00 s and ended with 1"),
        (_word_doubled, "words: 1 of 5 differ; speaker 0, channel 0: one two three three four five instead of"),
        (_speaker_failed, "end: speaker 0 did not come to an end: gave_up"),
        (_file_lost, "file: 0 did not come to an end: lost"),
        (_file_without_stream, "file: 0 has no stream of its job"),
        (_file_heard_twice, "file: 0 was sent 1 times and heard 2 times"),
        (_file_broken_off, "file: 0: the word at 1.50 s of channel 0 is in no final of st-2"),
        (_word_of_file_doubled, "file: 0: st-2 is gold red red instead of gold red"),
        (_came_up, "refusal: with garble it ended with 0: /data"),
        (_silent, "refusal: with garble it ended with 3: Traceback"),
        (_touched, "refusal: with garble it changed its database"),
        (_let_in, "knock: a wrong token was answered with 101"),
        (_left_over, "left over: job job-1 is still open"),
        (_complaint, "log: node 0: Traceback"),
    ],
)
def test_each_way_to_break_a_promise_is_found(doctor: Callable[[Ledger], None], sentence: str) -> None:
    ledger = good()
    doctor(ledger)
    assert any(complaint.startswith(sentence) for complaint in judge(ledger)), judge(ledger)


def test_recorded_digits_are_compared_with_the_undisturbed_run() -> None:
    calm, disturbed = good(), good()
    for ledger in (calm, disturbed):
        ledger.plan = msgspec.structs.replace(ledger.plan, spoken="digits")
    calm.rows[1] = Row(**{**msgspec.structs.asdict(ROWS[1]), "text": "free"})
    assert any(complaint.startswith("words: 1 of 5 differ") for complaint in judge(disturbed, calm))
    assert not any(complaint.startswith("words") for complaint in judge(disturbed, disturbed))


@pytest.mark.parametrize(
    ("got", "wanted", "errors"),
    [("", "", 0), ("a b", "a b", 0), ("a", "a b", 1), ("a x b", "a b", 1), ("x", "a", 1), ("b a", "a b", 2)],
)
def test_words_are_counted_by_edits(got: str, wanted: str, errors: int) -> None:
    assert distance(got.split(), wanted.split()) == errors
