"""From what was committed, and when, to latencies and wrong words: pure.

A word's latency counts from its end in the audio to the first message after which all words up to it stay as they
are.  A word the server has wrong counts with the time of what it says in its place, and as an error; one it never
says has no latency, and is lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from benchmarks.figures import slope, spread
from benchmarks.judging import edits
from benchmarks.peers.calling import Heard, Told
from benchmarks.peers.others import MOST_CORES
from benchmarks.peers.words import align, common

MOST_GROWTH = 0.1
"""Seconds that latency may grow by in a second of audio: a server that falls behind holds nobody for long.  Within a
turn answers become longer, which makes up to 0.08 with one session and is no falling behind."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """So many speakers at once, for a while."""

    sessions: int
    words: int
    """Said in the part that is judged."""
    p50_s: float
    p95_s: float
    """Both of the words that came; infinite when none did."""
    growth: float
    """Seconds of latency gained in a second of audio."""
    lost: int
    """Words never said, of the judged part."""
    errors: int
    """Edits between what was said and what was committed, over everything."""
    said: int
    """Words said over everything."""
    taken_back: int
    """Committed words a later message changed."""
    late_ms: float
    """The speakers' own worst lateness."""
    broken: list[str]
    others_cores: float = 0.0
    """Cores that others used meanwhile."""

    @property
    def noisy(self) -> bool:
        """Whether others had so much of the machine that nothing follows from this window."""
        return self.others_cores > MOST_CORES

    def holds(self, limit_s: float) -> bool:
        """Whether everybody was served within a limit, and would be for longer."""
        return not self.broken and self.p95_s <= limit_s and self.growth <= MOST_GROWTH

    @property
    def lost_share(self) -> float:
        """Words never said, of the judged ones."""
        return self.lost / self.words if self.words else 1.0


def judge(speakers: Sequence[Sequence[Heard]], *, from_ms: float, to_ms: float) -> Window:
    """All speakers of a window, each with his calls.

    Args:
        from_ms, to_ms: words that end between them, on their speaker's timeline, are judged.
    """
    points: list[tuple[float, float]] = []
    errors = said = taken_back = 0
    for heard in (heard for calls in speakers for heard in calls):
        truth = [word.text for word in heard.call.truth]
        places = align(truth, _last(heard.told))
        errors += edits(truth, _last(heard.told))
        said += len(truth)
        taken_back += _taken_back(heard.told)
        settled = settled_ms(heard.told)
        for word, place in zip(heard.call.truth, places, strict=True):
            if from_ms <= heard.call.at_ms + word.stop_ms < to_ms:
                at_ms = math.inf if place is None else settled[place]
                points.append(((heard.call.at_ms + word.stop_ms) / 1000, (at_ms - word.stop_ms) / 1000))
    came = [point for point in points if math.isfinite(point[1])]
    latencies = spread([latency for _, latency in came])
    return Window(
        sessions=len(speakers),
        words=len(points),
        p50_s=latencies.p50 if came else math.inf,
        p95_s=latencies.p95 if came else math.inf,
        growth=round(slope(came), 4),
        lost=len(points) - len(came),
        errors=errors,
        said=said,
        taken_back=taken_back,
        late_ms=round(max((heard.late_ms for calls in speakers for heard in calls), default=0.0), 1),
        broken=[heard.broken for calls in speakers for heard in calls if heard.broken],
    )


def settled_ms(told: Sequence[Told]) -> list[float]:
    """For each word of the last state: when it and all before it were first as they stayed."""
    last = _last(told)
    settled = [math.inf] * len(last)
    for state in reversed(told):
        same = common(state.words, last)
        for place in range(same):
            settled[place] = state.at_ms
        if same < len(last):
            last = last[:same]
    return settled


def _last(told: Sequence[Told]) -> list[str]:
    return told[-1].words if told else []


def _taken_back(told: Sequence[Told]) -> int:
    return sum(len(one.words) - common(one.words, other.words) for one, other in pairwise(told))
