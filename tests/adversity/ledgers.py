"""A run in which everything went well, for tests that doctor it."""

from __future__ import annotations

import msgspec

from tests.adversity.runs.ledger import (
    Acked,
    Died,
    Greeted,
    Handed,
    Knocked,
    Ledger,
    Refused,
    Row,
    Sending,
    Shown,
    Snapshot,
    Speaking,
    Watching,
)
from tests.adversity.runs.plan import File, Plan, Voice
from tests.adversity.runs.speech import Speech, Utterance

WORDS = (("one", "two"), ("three",), ("four", "five"))
SPEECH = Speech(lead_s=1.0, channels=(tuple(Utterance(words=words, pause_s=1.0) for words in WORDS),))
ROWS = [
    Row(
        interview="talk",
        stream="st-1",
        epoch=1,
        channel=0,
        segment=number,
        text=" ".join(words),
        start=start,
        stop=stop,
    )
    for number, (words, start, stop) in enumerate(
        zip(WORDS, (12_000, 44_000, 68_000), (38_000, 62_000, 92_000), strict=True)
    )
]
FILE = File(
    at_s=1.0,
    interview="talk",
    kind="WAV",
    speech=Speech(lead_s=1.0, channels=((Utterance(words=("gold", "red"), pause_s=1.0),),)),
)
HEARD = Row(interview="talk", stream="st-2", epoch=1, channel=0, segment=0, text="gold red", start=12_000, stop=38_000)


def plan(spoken: str = "tones") -> Plan:
    voice = Voice(interview="talk", speech=SPEECH, pace=1.0, step_ms=100)
    return msgspec.convert(
        {"seed": 0, "shape": "alone", "spoken": spoken, "voices": [msgspec.to_builtins(voice)], "faults": []}, Plan
    )


def shown(row: Row, at: float, **more: object) -> Shown:
    fields = {"connection": "s-1", "again": False, "durable": "store", **more}
    return msgspec.convert(
        {"at": at, "stream": row.stream, "channel": 0, "segment": row.segment, "text": row.text, **fields}, Shown
    )


def handed(row: Row) -> Handed:
    return Handed(
        sink="kafka",
        key=f"{row.stream}:{row.epoch}:{row.segment}",
        kind="final",
        interview="talk",
        stream=row.stream,
        epoch=row.epoch,
        segment=row.segment,
        text=row.text,
    )


def good() -> Ledger:
    """A run in which everything went well, with one killed process in its middle."""
    speaking = Speaking(
        greeted=[Greeted(at=0.1, connection="s-1", stream="st-1", epoch=1, resume_at=0)],
        acked=[Acked(at=3.0, stream="st-1", position=40_320, given=48_000)],
        shown=[shown(row, at) for row, at in zip(ROWS, (2.5, 4.5, 6.0), strict=True)],
        ended="closed",
        closed_finals=3,
    )
    end = Handed(sink="kafka", key="talk:1", kind="transcript.completed", interview="talk", revision=1)
    return Ledger(
        plan=msgspec.structs.replace(plan(), files=(FILE,)),
        speaking=[speaking],
        snapshots=[
            Snapshot(at=3.5, why="node 0 killed", rows=ROWS[:1], restarts={"st-1": [40_320]}, epochs={"st-1": 1})
        ],
        rows=[*ROWS, HEARD],
        order={"talk": [row.key for row in (*ROWS, HEARD)]},
        watching=[watching([*ROWS, HEARD], 9), watching([HEARD, *ROWS], 8)],
        sending=[Sending(attempts=1, job="job-1", stream="st-2", ended="done", streams=["st-2"])],
        refused=[Refused(why="garble", code=3, said="/data/streamsrv.db is damaged", untouched=True)],
        knocked=[Knocked(at=1.0, status=403)],
        sinks=["kafka"],
        handed=[*map(handed, [*ROWS, HEARD]), end],
        died=[Died(at=3.4, name="node 0", code=-9, wanted=True), Died(at=9.0, name="node 0", code=0, wanted=True)],
    )


def watching(rows: list[Row], number: int) -> Watching:
    return Watching(
        interview="talk",
        shown=[shown(row, at, connection=f"s-{number}") for row, at in zip(rows, (2.5, 4.5, 6.0, 7.0), strict=False)],
    )


def change(item: msgspec.Struct, **fields: object) -> msgspec.Struct:
    return msgspec.structs.replace(item, **fields)
