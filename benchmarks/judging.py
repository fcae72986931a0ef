"""From what arrived, and when, to latencies: pure, so that its own tests can wind the clock.

All times are ms on the script's timeline, whose zero is the moment the first sample was spoken.  A word's latency
counts from its end: known for constructed speech (words are matched by their order), taken from the final's own word
times for recordings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Any

import msgspec

from benchmarks.listening import Arrival, Heard

LONG_MS = 3_000
"""Utterances longer than this must show stable words before their final."""


class Judged(msgspec.Struct, kw_only=True):
    """Pools of latencies in ms, and counts, over any number of sessions."""

    first_partial: list[float] = []
    """Word end -> the first message with the word."""
    commit: list[float] = []
    """Word end -> the first message after which the word is never taken back."""
    ends: list[float] = []
    """Where the words of ``commit`` end in the audio, ms."""
    final: list[float] = []
    """End of the last word -> its final, where silence ended the segment: ``endpoint`` + ``finalise``."""
    endpoint: list[float] = []
    """End of the last word -> ``speech_stopped``: waiting for silence, a setting."""
    finalise: list[float] = []
    """``speech_stopped`` -> final: the server's and the engine's own share."""
    flush: list[float] = []
    """``flush`` -> the final of what was being said."""
    late: list[float] = []
    """Frames against their intended time: the speaker's own lateness."""
    words: int = 0
    """In finals."""
    stable: int = 0
    """Of them stable before the final."""
    long_words: int = 0
    """In finals of segments over ``LONG_MS``."""
    long_stable: int = 0
    withdrawn: int = 0
    """Words of partials that a later message replaced or took back."""
    truth: int = 0
    """Words of constructed speech."""
    matched: int = 0
    """Of them in the finals."""
    truth_errors: int = 0
    """Edits between constructed speech and the finals."""
    written: int = 0
    """Words of the texts beside recordings."""
    errors: int = 0
    """Edits between them and the finals."""
    broken: list[str] = []
    """What the guards found."""

    def add(self, other: Judged) -> None:
        """Pool another session's."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Segment(msgspec.Struct, kw_only=True):
    """What arrived about one segment."""

    final: Arrival
    partials: list[Arrival]
    stopped: Arrival | None

    @property
    def words(self) -> list[str]:
        return _words(self.final)

    @property
    def middle_ms(self) -> float:
        return (int(self.final.message["start_ms"]) + int(self.final.message["stop_ms"])) / 2

    @property
    def duration_ms(self) -> int:
        return int(self.final.message["stop_ms"]) - int(self.final.message["start_ms"])


def judge(heard: Heard) -> Judged:
    """Everything about one session."""
    judged = Judged(late=list(heard.late_ms), broken=list(violations(heard)))
    segments = _segments(heard.arrivals)
    ends = _ends(heard, segments, judged)
    for number, segment in enumerate(segments):
        _judge_words(judged, segment, [end for n, end in ends if n == number])
        _judge_end(judged, heard, segment)
    _judge_text(judged, heard, segments)
    return judged


# --- guards ------------------------------------------------------------------------------------------------------


def violations(heard: Heard) -> Iterator[str]:
    """What must never happen: a stable word taken back, a final lost or doubled, audio unaccounted for."""
    stable: dict[int, str] = {}
    finals: list[int] = []
    closed: dict[str, Any] | None = None
    for arrival in heard.arrivals:
        message = arrival.message
        match message["type"]:
            case "partial" | "final" as kind:
                segment = int(message["segment"])
                if segment in finals:
                    yield f"a {kind} of segment {segment} after its final"
                if not message["text"].startswith(stable.get(segment, "")):
                    yield f"a stable word of segment {segment} was taken back"
                if kind == "final":
                    finals.append(segment)
                else:
                    stable[segment] = message["text"][: message["stable_chars"]]
            case "closed":
                closed = message
            case "error" | "warning" | "audio_gap" as kind:
                yield f"{kind} {message.get('code', '')}"
    if sorted(finals) != list(range(len(finals))) or not stable.keys() <= set(finals):
        yield f"finals of segments {finals} for partials of segments {sorted(stable)}"
    if closed is None:
        yield "no 'closed' came"
    elif closed["finals"] != len(finals) or abs(closed["audio_ms"] - heard.script.duration_ms) > 1:
        yield f"'closed' tells {closed['finals']} finals and {closed['audio_ms']} ms of audio"


# --- words -------------------------------------------------------------------------------------------------------


def _segments(arrivals: Sequence[Arrival]) -> list[Segment]:
    """By order of their finals."""
    finals = [a for a in arrivals if a.message["type"] == "final"]
    return [
        Segment(
            final=final,
            partials=[a for a in arrivals if a.message["type"] == "partial" and _same(a, final, "segment")],
            stopped=next(
                (a for a in arrivals if a.message["type"] == "speech_stopped" and _same(a, final, "utterance")), None
            ),
        )
        for final in finals
    ]


def _same(one: Arrival, other: Arrival, name: str) -> bool:
    return bool(one.message[name] == other.message[name])


def _ends(heard: Heard, segments: Sequence[Segment], judged: Judged) -> list[tuple[int, tuple[int, float]]]:
    """For each word whose end is known: its segment, its place in the segment's final, and its end."""
    places = [(number, place) for number, segment in enumerate(segments) for place in range(len(segment.words))]
    truth = heard.script.truth
    if not truth:
        return [(n, (p, float(segments[n].final.message["words"][p]["stop_ms"]))) for n, p in places]
    said = [segments[n].words[p] for n, p in places]
    pairs = list(_matches([word.text for word in truth], said))
    judged.truth, judged.matched = len(truth), len(pairs)
    judged.truth_errors = edits([word.text for word in truth], said)
    return [(places[b][0], (places[b][1], float(truth[a].stop_ms))) for a, b in pairs]


def _judge_words(judged: Judged, segment: Segment, ends: Sequence[tuple[int, float]]) -> None:
    words, final_at = segment.words, segment.final.at_ms
    shown, stable = [final_at] * len(words), [final_at] * len(words)
    for partial in reversed(segment.partials):
        for _, place in _matches(_words(partial), words):
            shown[place] = partial.at_ms
        for place in range(min(len(words), _stable_words(partial))):
            stable[place] = partial.at_ms
    judged.first_partial += [shown[place] - end_ms for place, end_ms in ends]
    judged.commit += [stable[place] - end_ms for place, end_ms in ends]
    judged.ends += [end_ms for _, end_ms in ends]
    early = sum(at < final_at for at in stable)
    judged.words += len(words)
    judged.stable += early
    if segment.duration_ms > LONG_MS:
        judged.long_words += len(words)
        judged.long_stable += early
    judged.withdrawn += _withdrawn([*segment.partials, segment.final])


def _judge_end(judged: Judged, heard: Heard, segment: Segment) -> None:
    message, at_ms = segment.final.message, segment.final.at_ms
    if message["cause"] == "flush":
        judged.flush.append(at_ms - heard.flush_ms)
    if message["cause"] != "vad" or segment.stopped is None:
        return
    judged.finalise.append(at_ms - segment.stopped.at_ms)
    said = [word.stop_ms for word in heard.script.truth if message["start_ms"] < word.stop_ms <= message["stop_ms"]]
    if not heard.script.truth:
        said = [word["stop_ms"] for word in message["words"]]
    if said:
        judged.final.append(at_ms - max(said))
        judged.endpoint.append(segment.stopped.at_ms - max(said))


def _judge_text(judged: Judged, heard: Heard, segments: Sequence[Segment]) -> None:
    """Word errors of a recording somebody wrote down, without the part that is cut off.

    A segment belongs to the part that holds its middle: the one that is cut off begins before its part does, by the
    audio that is kept before an onset, and its words are said a second time.
    """
    wanted = heard.script.text.split()
    if wanted:
        said = [word for s in segments if s.middle_ms < heard.script.plain_ms for word in s.words]
        judged.written, judged.errors = len(wanted), edits(wanted, said)


# --- texts -------------------------------------------------------------------------------------------------------


def _words(arrival: Arrival) -> list[str]:
    return str(arrival.message["text"]).split()


def _stable_words(partial: Arrival) -> int:
    return len(str(partial.message["text"])[: partial.message["stable_chars"]].split())


def _matches(one: Sequence[str], other: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Places of equal words, in order in both."""
    for block in SequenceMatcher(None, list(one), list(other), autojunk=False).get_matching_blocks():
        yield from ((block.a + n, block.b + n) for n in range(block.size))


def _withdrawn(arrivals: Sequence[Arrival]) -> int:
    texts = [_words(arrival) for arrival in arrivals]
    return sum(len(before) - _common(before, after) for before, after in pairwise(texts))


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def edits(wanted: Sequence[str], said: Sequence[str]) -> int:
    """Words to replace, add or drop at least to come from one to the other."""
    row = list(range(len(said) + 1))
    for n, word in enumerate(wanted, start=1):
        diagonal, row[0] = row[0], n
        for m, other in enumerate(said, start=1):
            diagonal, row[m] = row[m], min(row[m] + 1, row[m - 1] + 1, diagonal + (word != other))
    return row[-1]
