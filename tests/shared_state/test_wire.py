"""What nodes read is what they wrote, and whatever else comes does no harm."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamsrv import events
from streamsrv.commands import Options
from streamsrv.events import ViewerEvent
from streamsrv.shared_state._redis.wire import (
    MAX_BYTES,
    Deleted,
    Live,
    Names,
    Taken,
    Watching,
    Word,
    encode,
    read_live,
    read_word,
)
from tests.stores.builders import final

EVENTS: list[ViewerEvent | None] = [
    None,
    events.Ready(epoch=2, resume_at=0, channels=(), options=Options(speaker="Ada")),
    events.Configured(options=Options(language="en")),
    events.SpeechStarted(channel=1, utterance=2, at=3),
    events.Partial(channel=0, utterance=0, segment=0, start=0, stop=9, text="né", stable_chars=1, lag_ms=5),
    final(3, text="two words", channel=1),
    events.StreamOver(),
]


@pytest.mark.parametrize("event", EVENTS)
def test_what_happened_arrives_as_it_was(event: ViewerEvent | None) -> None:
    live = Live("a.1", 2**40, 7, "s", event)
    assert read_live(encode(live)) == live


@pytest.mark.parametrize("word", [Watching("a", "i"), Taken("a", "i", "s", 2), Deleted("a", "i")])
def test_words_arrive_as_they_were(word: Word) -> None:
    assert read_word(encode(word)) == word


def test_a_later_version_may_add_to_what_is_said() -> None:
    told = msgspec.msgpack.decode(encode(Live("a", 1, 2, "s", events.StreamOver())))
    told[4]["because"] = "of something new"
    read = read_live(msgspec.msgpack.encode([*told, "more"]))
    assert read is not None
    assert read.event == events.StreamOver()
    told[4]["event"] = "unheard_of"
    assert read_live(msgspec.msgpack.encode(told)) is None


@given(st.binary(max_size=300))
@example(b"\x93\xa1\xff\x01\x02")
@example(b"\x93\xa7deleted\xa1\xff\xa1a")
@example(b"\x91" * 100_000)
def test_garbage_is_nothing(data: bytes) -> None:
    """What is no message, whole and well-formed, is not read; nothing is raised."""
    for read in (read_live, read_word):
        found = read(data)
        assert found is None or msgspec.msgpack.decode(data)[: 1 if read is read_live else 2]


def test_texts_that_are_no_text_are_not_read() -> None:
    assert read_live(b"\x93\xa1\xff\x01\x02") is None
    assert read_live(b"\x93\xa1a\x01\x02") == Live("a", 1, 2)
    assert read_word(b"\x93\xa7deleted\xa1\xff\xa1a") is None
    assert read_word(b"\x93\xa7deleted\xa1b\xa1a") == Deleted("b", "a")


def test_what_is_too_long_is_not_looked_at() -> None:
    assert read_live(encode(Live("a" * MAX_BYTES, 1, 2))) is None
    assert read_word(encode(Watching("a", "b" * MAX_BYTES))) is None


def test_names_are_apart_and_tell_no_key() -> None:
    names = Names("p")
    assert names.interview_of(names.live("a:b")) == "a:b"
    assert names.interview_of(names.nodes) is None
    assert names.share("secret") == names.share("secret") != names.share("secret2")
    assert "secret" not in names.share("secret")
