"""Judges those who come and go: rivals, somebody who was away, latecomers, and who reads a sink."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.adversity.runs.ledger import Handed, Leaving, Ledger, Row
from tests.adversity.runs.odds import FASTER
from tests.adversity.runs.plan import Leave

LET_IN, OVERTAKEN, ENDED = 101, 409, 410
NO = frozenset({0, 503})
"""Nobody answered, or a node that leaves: as happens when nodes end."""
GONE = ("404", "410")
LEAD_IN_S = 0.6
"""What lies so little before an ack may be asked for again (docs/protocol.md)."""
KEPT_S = 60.0 / FASTER - 0.5
"""A stream whose speaker is away for less is kept."""


def judge_comers(ledger: Ledger) -> Iterator[str]:
    """Every complaint about them."""
    yield from _rivals(ledger)
    for planned, one in zip(ledger.plan.leaves, ledger.left, strict=True):
        yield from _left(ledger, planned, one)
    for late in ledger.late:
        if late.status not in (ENDED, *NO):
            yield f"late: a stream that has ended was to be resumed, and the answer was {late.status}"
    yield from _consumed(ledger)


def _rivals(ledger: Ledger) -> Iterator[str]:
    """Whoever is let in has an epoch of its own; nobody hears that it is over before it is."""
    epochs = [(one.stream, one.epoch) for one in ledger.rivals if one.epoch]
    epochs += [(one.stream, one.epoch) for speaking in ledger.speaking for one in speaking.greeted]
    for (stream, epoch), times in Counter(epochs).items():
        if times > 1:
            yield f"I2: {times} connections to {stream} had the epoch {epoch}"
    last = {greeted.stream: greeted.at for speaking in ledger.speaking for greeted in speaking.greeted}
    for one in ledger.rivals:
        ended = one.status == ENDED and last[one.stream] < one.at
        if one.status not in (LET_IN, OVERTAKEN, *NO) and not ended:
            yield f"rival: the token of {one.stream} was answered with {one.status} at {one.at:.2f} s"


def _left(ledger: Ledger, planned: Leave, one: Leaving) -> Iterator[str]:
    """It finds all of its stream again, or hears that it is over; never half of it, and never too early."""
    if not one.stream:
        return
    if not one.ended:
        yield f"leave: nobody told whoever came back to {one.stream} what became of it"
    if one.ended in GONE and one.resumed_at < 0 and one.away_s < KEPT_S:
        yield f"leave: {one.stream} was gone after {one.away_s:.2f} s: {one.ended}"
    if one.resumed_at >= 0:
        if one.resumed_at < one.acked - LEAD_IN_S * planned.speech.rate_hz:
            yield f"leave: {one.stream} was acknowledged to {one.acked} and is to go on at {one.resumed_at}"
        for shown in one.shown:
            if shown.durable == "store" and shown.key not in one.again:
                yield f"leave: {shown.key} was shown and was not there any more"
    heard = [word.word for word in planned.speech.placed() if word.stop <= one.acked]
    rows = sorted((row for row in ledger.rows if row.stream == one.stream), key=lambda row: row.start)
    got = " ".join(row.text for row in rows).split()
    if len(got) < len(heard) or got != planned.speech.words(0)[: len(got)]:
        yield f"leave: {one.stream} is {' '.join(got)}; {' '.join(heard)} was acknowledged"
    elif one.ended == "closed" and got != planned.speech.words(0):
        yield f"leave: {one.stream} was said again to its end and is {' '.join(got)}"


def _consumed(ledger: Ledger) -> Iterator[str]:
    """However often it died: each final has had one effect, the right one."""
    if ledger.consumed is None:
        return
    effects = {(one.stream, one.channel, one.segment): one for one in ledger.consumed}
    for row in ledger.rows:
        if (effect := effects.get(row.key)) is None:
            yield f"I3: segment {row.key} had no effect on who reads"
        elif not _same(effect, row):
            yield f"I3: segment {row.key} is {row.text!r} in the store and had the effect {effect.text!r}"
    for key in effects.keys() - {row.key for row in ledger.rows}:
        yield f"I3: segment {key} had an effect and is not in the store"


def _same(effect: Handed, row: Row) -> bool:
    return (effect.text, effect.epoch) == (row.text, row.epoch)
