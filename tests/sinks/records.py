"""Records to send."""

from __future__ import annotations

import msgspec

from streamsrv.sinks.base import Record


def record(number: int, *, interview: str = "talk", size: int = 0) -> Record:
    """An event with a number, and about ``size`` bytes."""
    body = msgspec.json.encode({"type": "transcript.final", "n": number, "text": "é" + "x" * size})
    return Record(interview=interview, id=f"{interview}/st-1/1/0/{number}", kind="transcript.final", body=body)


def records(count: int, *, interview: str = "talk") -> list[Record]:
    return [record(number, interview=interview) for number in range(count)]
