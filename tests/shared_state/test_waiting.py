"""What waits for Redis has a bound, and partials give way first."""

from __future__ import annotations

import pytest

from streamsrv import events
from streamsrv.events import ViewerEvent
from streamsrv.shared_state._redis import waiting as module
from streamsrv.shared_state._redis.waiting import Event, Waiting


def partial(segment: int, text: str, stream: str = "s") -> Event:
    said = events.Partial(
        channel=0, utterance=segment, segment=segment, start=0, stop=1, text=text, stable_chars=0, lag_ms=0
    )
    return Event("talk", 7, stream, said)


def over(number: int) -> Event:
    return Event("talk", number, "s", events.StreamOver())


def taken(waiting: Waiting) -> list[ViewerEvent | None]:
    return [one.event for one in waiting.take(10_000)[1]]


def test_a_newer_partial_takes_the_place_of_the_older_of_its_segment() -> None:
    waiting = Waiting()
    assert [waiting.put(one) for one in (partial(0, "a"), over(8), partial(1, "b"), partial(0, "a c"))] == [0] * 4
    told = taken(waiting)
    assert [one.text for one in told if isinstance(one, events.Partial)] == ["a c", "b"]
    assert [type(one) for one in told] == [events.Partial, events.StreamOver, events.Partial]


def test_partials_of_other_streams_stay() -> None:
    waiting = Waiting()
    for stream in ("s", "t"):
        waiting.put(partial(0, "a", stream))
    assert len(taken(waiting)) == 2


def test_when_it_is_full_partials_go_first_and_then_what_is_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EVENTS", 6)
    waiting = Waiting()
    for segment in range(4):
        waiting.put(partial(segment, "a"))
    assert [waiting.put(over(n)) for n in range(2)] == [0, 0]
    assert waiting.put(over(2)) == 4
    assert [waiting.put(over(n)) for n in range(3, 8)] == [0, 0, 0, 1, 1]
    assert [one.count for one in waiting.take(99)[1]] == [0, 1, 2, 3, 4, 5]


def test_commands_go_first_and_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_COMMANDS", 2)
    waiting = Waiting()
    waiting.put(over(1))
    assert [waiting.order(("PING", n)) for n in range(3)] == [0, 0, 1]
    commands, told = waiting.take(2)
    assert (commands, told) == ([("PING", 0), ("PING", 1)], [])
    assert len(waiting.take(2)[1]) == 1
    assert len(waiting) == 0


def test_what_is_cleared_is_counted() -> None:
    waiting = Waiting()
    waiting.put(over(1))
    waiting.order(("PING",))
    assert (waiting.clear(), len(waiting)) == (2, 0)
