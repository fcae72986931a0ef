"""Transcripts: streams merged by wall time, and the forms they are given out in."""

from __future__ import annotations

import re
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsrv.commands import Options
from streamsrv.events import Final
from streamsrv.facts import Word
from streamsrv.stores.base import Anchor, EpochStart, Interview, StoredFinal, Stream
from streamsrv.stores.transcript import Document, document, to_json, to_srt, to_txt, to_vtt
from streamsrv.stores.transcript.cues import LONGEST_MS, MAX_COLUMNS, MAX_ROWS, cues
from streamsrv.stores.transcript.pieces import plain, width
from tests.stores.builders import NOW_MS, SECOND, final, word

TALK = Interview(id="talk", status="live", started_ms=NOW_MS)


def stream(
    order: int = 1,
    anchors: tuple[tuple[int, int], ...] = ((0, NOW_MS),),
    *,
    speaker: str | None = None,
    channels: int = 1,
    loudest: tuple[float, ...] = (),
) -> Stream:
    return Stream(
        id=f"s{order}",
        interview="talk",
        order=order,
        status="live",
        options=Options(speaker=speaker, channels=channels, multichannel=channels > 1),
        engine="scripted",
        epochs=(EpochStart(epoch=1, begins=(0,) * channels),),
        anchors=tuple(Anchor(position=position, utc_ms=utc_ms) for position, utc_ms in anchors),
        restarts=(0,) * channels,
        started_ms=NOW_MS - 77,
        loudest_discarded_dbfs=loudest,
    )


def kept(one: Final, order: int = 1) -> StoredFinal:
    return StoredFinal(stream=f"s{order}", epoch=1, final=one)


def talk(*finals: StoredFinal, streams: tuple[Stream, ...] | None = None) -> Document:
    return document(TALK, streams or (stream(),), finals)


# --- wall time ----------------------------------------------------------------------------------------------------


def test_the_last_anchor_at_or_before_a_position_holds() -> None:
    pause = stream(anchors=((0, NOW_MS), (2 * SECOND, NOW_MS + 60_000)))
    one, two = talk(kept(final(1)), kept(final(2)), streams=(pause,)).segments
    assert (one.start_ms, one.stop_ms) == (1_000, 2_000), "the pause behind it does not count"
    assert (two.start_ms, two.stop_ms) == (60_000, 61_000)
    assert (two.start_utc_ms, two.stop_utc_ms) == (NOW_MS + 60_000, NOW_MS + 61_000)


def test_a_word_has_its_own_times() -> None:
    (line,) = talk(kept(final(3, text="two words"))).segments
    assert [(one.text, one.start_ms, one.stop_ms) for one in line.words] == [
        ("two", 3_000, 3_500),
        ("words", 3_500, 4_000),
    ]


def test_a_stream_without_anchors_begins_when_it_was_recorded() -> None:
    (line,) = talk(kept(final(1)), streams=(stream(anchors=()),)).segments
    assert (line.start_ms, line.start_utc_ms) == (1_000, NOW_MS - 77 + 1_000)


def test_zero_is_the_earliest_first_anchor() -> None:
    late, early = stream(1, ((0, NOW_MS + 5_000),)), stream(2, ((0, NOW_MS),))
    made = talk(kept(final(0), 1), kept(final(0), 2), streams=(late, early))
    assert [(line.stream, line.start_ms) for line in made.segments] == [("s2", 0), ("s1", 5_000)]
    assert made.interview.zero_utc_ms == NOW_MS


def test_a_clock_set_back_does_not_turn_a_channel_around() -> None:
    back = stream(anchors=((0, NOW_MS), (2 * SECOND, NOW_MS - 3_600_000)))
    made = talk(*(kept(final(segment)) for segment in range(4)), streams=(back,))
    assert [line.segment for line in made.segments] == [0, 1, 2, 3]
    found = cues(made)
    assert [(cue.start_ms, cue.stop_ms) for cue in found] == [(n * 1_000, n * 1_000 + 1_000) for n in range(4)]


# --- the document -------------------------------------------------------------------------------------------------


def test_empty_interviews_have_empty_transcripts() -> None:
    nothing = document(TALK, (), ())
    assert (nothing.streams, nothing.segments, nothing.interview.zero_utc_ms) == ((), (), None)
    assert (to_txt(nothing), to_srt(nothing), to_vtt(nothing)) == ("", "", "WEBVTT\n")


def test_json_has_units_in_its_names_and_keeps_empty_segments() -> None:
    failed = msgspec.structs.replace(final(1, text=""), failed=True, cause="length")
    made = talk(kept(final(0, text="hello")), kept(failed), streams=(stream(loudest=(-float("inf"),)),))
    found = msgspec.json.decode(to_json(made))
    assert found["interview"]["started_utc_ms"] == NOW_MS
    assert found["streams"][0]["loudest_discarded_dbfs"] == [None]
    hello, empty = found["segments"]
    assert hello["words"] == [
        {"text": "hello", "start_ms": 0, "stop_ms": 1_000, "confidence": 0.5, "estimated": False, "glued": False}
    ]
    assert (hello["start_ms"], hello["stop_ms"], hello["start_utc_ms"]) == (0, 1_000, NOW_MS)
    assert (empty["text"], empty["failed"], empty["cause"]) == ("", True, "length")
    assert "token" not in to_json(made).lower()
    assert to_txt(made) == "hello\n"
    assert len(cues(made)) == 1


def test_who_speaks_is_said_when_several_do() -> None:
    alone = talk(kept(final(0, text="hello")), streams=(stream(speaker="Ann"),))
    assert to_txt(alone) == "hello\n"
    streams = (stream(1, speaker="Ann"), stream(2), stream(3, channels=2))
    both = (
        kept(final(0, text="hello"), 1),
        kept(final(1, text="hi"), 2),
        kept(final(2, text="left"), 3),
        kept(final(3, text="right", channel=1), 3),
    )
    made = talk(*both, streams=streams)
    assert to_txt(made) == "Ann: hello\nStream 2: hi\nStream 3 Channel 1: left\nStream 3 Channel 2: right\n"
    assert "Ann: hello" in to_vtt(made)


def test_a_speaker_who_came_back_is_one_speaker() -> None:
    streams = (stream(1, speaker="Ann"), stream(2, ((0, NOW_MS + 9_000),), speaker="Ann"))
    assert to_txt(talk(kept(final(0, text="a"), 1), kept(final(0, text="b"), 2), streams=streams)) == "a\nb\n"


# --- subtitles ----------------------------------------------------------------------------------------------------


def test_srt_and_vtt_as_players_expect_them() -> None:
    made = talk(kept(final(0, text="hello there")), kept(final(1, text="good day")))
    assert to_srt(made) == (
        "1\n00:00:00,000 --> 00:00:01,000\nhello there\n\n2\n00:00:01,000 --> 00:00:02,000\ngood day\n"
    )
    assert to_vtt(made) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nhello there\n\n00:00:01.000 --> 00:00:02.000\ngood day\n"
    )


def test_markup_is_escaped() -> None:
    made = talk(kept(final(0, text="a --> b & <i>c")))
    assert "a --&gt; b &amp; &lt;i&gt;c" in to_vtt(made)
    assert "a -- > b & <i>c" in to_srt(made)


def test_line_ends_inside_a_text_break_no_block() -> None:
    made = talk(kept(final(0, text="one\n\n2\r\n00:00:00,000 --> 00:00:09,000\n\nevil")))
    assert to_srt(made).count(" --> ") == 1
    assert "\n\n" not in to_srt(made)
    assert to_txt(made).count("\n") == 1


def test_more_than_99_hours() -> None:
    far = stream(anchors=((0, NOW_MS), (SECOND, NOW_MS + 360_000_000)))
    assert "100:00:00,000 --> 100:00:01,000" in to_srt(talk(kept(final(0)), kept(final(1)), streams=(far,)))


def test_long_segments_are_split_at_words() -> None:
    spoken = " ".join(f"word{n:02}" for n in range(40))
    found = cues(talk(kept(final(0, start=0, stop=20 * SECOND, text=spoken))))
    assert " ".join(" ".join(cue.rows) for cue in found) == spoken
    assert [len(cue.rows) for cue in found] == [2, 2, 2, 1]
    assert [cue.start_ms for cue in found] == [0, 6_000, 12_000, 18_000]
    assert all(before.stop_ms <= after.start_ms for before, after in pairwise(found))


def test_slow_speech_is_split_by_time() -> None:
    found = cues(talk(kept(final(0, start=0, stop=20 * SECOND, text="very slow speech here"))))
    assert [(cue.rows, cue.stop_ms - cue.start_ms) for cue in found] == [
        (("very",), 5_000), (("slow",), 5_000), (("speech",), 5_000), (("here",), 5_000),
    ]  # fmt: skip


def test_a_word_that_never_ends_is_shown_for_seven_seconds() -> None:
    (cue,) = cues(talk(kept(final(0, start=0, stop=20 * SECOND, text="aaah"))))
    assert (cue.start_ms, cue.stop_ms) == (0, LONGEST_MS)


def test_glued_words_and_wide_characters() -> None:
    text = "今天天气很好" * 10 + "。"
    words = tuple(word(char, n * 800, n * 800 + 800, glued=n > 0) for n, char in enumerate(text))
    one = msgspec.structs.replace(final(0, start=0, stop=61 * 800, text=text), words=words)
    found = cues(talk(kept(one)))
    assert "".join("".join(cue.rows) for cue in found) == text
    assert max(width(row) for cue in found for row in cue.rows) == MAX_COLUMNS
    assert not any(row.startswith("。") for cue in found for row in cue.rows)


def test_punctuation_stays_with_its_word() -> None:
    texts = ["a" * 20, "b" * 21, ",", "c" * 30, "!", "?"]
    text = f"{'a' * 20} {'b' * 21}, {'c' * 30}!?"
    words = tuple(word(one, n * 900, n * 900 + 900, glued=not one.isalpha()) for n, one in enumerate(texts))
    one = msgspec.structs.replace(final(0, start=0, stop=6 * 900, text=text), words=words)
    assert [cue.rows for cue in cues(talk(kept(one)))] == [("a" * 20, "b" * 21 + ","), ("c" * 30 + "!?",)]


def test_words_of_nothing_but_space_are_no_subtitle() -> None:
    blank = msgspec.structs.replace(final(0, text=""), words=(word("\n", 0, 10),))
    assert cues(talk(kept(blank))) == []
    spoken = msgspec.structs.replace(final(0, text="hi"), words=(word("\x07", 0, 10), word("hi", 10, 20_000)))
    assert [(cue.start_ms, cue.rows) for cue in cues(talk(kept(spoken)))] == [(0, ("hi",))]


def test_a_final_without_words_is_split_in_proportion() -> None:
    one = msgspec.structs.replace(final(0, start=0, stop=10 * SECOND, text="ten chars " * 10), words=())
    first, second = cues(talk(kept(one)))
    assert (first.start_ms, first.stop_ms, second.stop_ms) == (0, second.start_ms, 10_000)
    share = len(" ".join(first.rows)) / len(" ".join((*first.rows, *second.rows)))
    assert first.stop_ms == pytest.approx(10_000 * share, abs=200)


def test_a_long_name_leaves_room_for_words() -> None:
    streams = (stream(1, speaker="Wolfeschlegelsteinhausenbergerdorff the Elder"), stream(2, speaker="Bo"))
    made = talk(kept(final(0, text="hello"), 1), kept(final(1, text="hi"), 2), streams=streams)
    assert cues(made)[0].rows == ("Wolfeschlegelsteinh…: hello",)


# --- any transcript -----------------------------------------------------------------------------------------------

LETTERS = st.sampled_from(
    ["a", "é", "word", "&", "<b>", "-->", "天", "x" * 50, ".", "\u0301", "two parts", "\n", "\x07"]
)


@st.composite
def tracks(draw: st.DrawFn, order: int, channel: int) -> list[StoredFinal]:
    """Finals of one channel: not overlapping, some empty, words inside."""
    found = []
    position = 0
    for segment in range(draw(st.integers(0, 5))):
        start = position + draw(st.integers(0, 3 * SECOND))
        texts = draw(st.lists(LETTERS, max_size=12))
        stop = start + draw(st.integers(1, 20 * SECOND))
        edges = sorted(draw(st.lists(st.integers(start, stop), min_size=2 * len(texts), max_size=2 * len(texts))))
        words = tuple(
            Word(text=text, start=begin, stop=end, confidence=1.0, glued=draw(st.booleans()))
            for text, begin, end in zip(texts, edges[::2], edges[1::2], strict=True)
        )
        text = "".join(one.text if one.glued else f" {one.text}" for one in words).strip()
        made = final(segment, channel=channel, start=start, stop=stop, text=text)
        found.append(kept(msgspec.structs.replace(made, words=words if draw(st.booleans()) else ()), order))
        position = stop
    return found


@st.composite
def documents(draw: st.DrawFn) -> tuple[Document, list[StoredFinal]]:
    streams, finals = [], []
    for order in range(1, draw(st.integers(1, 3)) + 1):
        channels = draw(st.integers(1, 2))
        positions = sorted(draw(st.sets(st.integers(0, 60 * SECOND), max_size=4)))
        anchors = tuple((position, NOW_MS + draw(st.integers(-10_000, 400_000_000))) for position in positions)
        streams.append(stream(order, anchors, channels=channels, speaker=draw(st.sampled_from([None, "A", "<B>\n"]))))
        for channel in range(channels):
            finals += draw(tracks(order, channel))
    return document(TALK, streams, draw(st.permutations(finals))), finals


@given(documents())
def test_every_final_is_there_once_and_channels_keep_their_order(made: tuple[Document, list[StoredFinal]]) -> None:
    transcript, finals = made
    order: dict[tuple[str, int], list[int]] = {}
    for line in transcript.segments:
        order.setdefault((line.stream, line.channel), []).append(line.segment)
        assert line.start_ms <= line.stop_ms
        assert line.start_utc_ms - line.start_ms == transcript.interview.zero_utc_ms
        assert all(one.start_ms <= one.stop_ms for one in line.words)
    expected: dict[tuple[str, int], list[int]] = {}
    for one in finals:
        expected.setdefault((one.stream, one.final.channel), []).append(one.final.segment)
    assert order == expected


@given(documents())
def test_streams_with_steady_clocks_are_merged_by_start(made: tuple[Document, list[StoredFinal]]) -> None:
    """A line stands before an earlier one only when its own channel's clock went back."""
    newest: dict[tuple[str, int], int] = {}
    keys = []
    for line in made[0].segments:
        track = (line.stream, line.channel)
        newest[track] = max(newest.get(track, 0), line.start_utc_ms)
        keys.append(newest[track])
    assert keys == sorted(keys)


@given(documents())
def test_subtitles_keep_their_bounds_and_lose_no_letter(made: tuple[Document, list[StoredFinal]]) -> None:
    transcript, _ = made
    found = cues(transcript)
    for cue in found:
        assert 0 <= cue.start_ms < cue.stop_ms <= cue.start_ms + LONGEST_MS
        assert 1 <= len(cue.rows) <= MAX_ROWS
        assert all(width(row) <= MAX_COLUMNS for row in cue.rows)
    assert [cue.start_ms for cue in found] == sorted(cue.start_ms for cue in found)
    if len({line.label for line in transcript.segments if plain(line.text)}) <= 1:
        spoken = sorted("".join(plain(line.text) for line in transcript.segments).replace(" ", ""))
        assert sorted("".join("".join(cue.rows) for cue in found).replace(" ", "")) == spoken


@given(documents())
def test_subtitle_files_have_the_right_shape(made: tuple[Document, list[StoredFinal]]) -> None:
    count = len(cues(made[0]))
    srt, vtt = to_srt(made[0]), to_vtt(made[0])
    assert srt.count("-->") == vtt.count("-->") == count
    blocks = [block for block in srt.split("\n\n") if block]
    assert [block.split("\n")[0] for block in blocks] == [str(n) for n in range(1, count + 1)]
    clock = r"\d\d+:\d\d:\d\d,\d{3}"
    assert all(re.fullmatch(f"{clock} --> {clock}", block.split("\n")[1]) for block in blocks)
    assert len(re.findall(r"^\d\d+:\d\d:\d\d\.\d{3} --> ", vtt, re.MULTILINE)) == count
    assert "<" not in vtt


def test_the_order_of_what_is_given_does_not_matter() -> None:
    streams = (stream(1), stream(2))
    finals = tuple(kept(final(segment), order) for segment in range(3) for order in (1, 2))
    assert document(TALK, streams, finals) == document(TALK, streams[::-1], finals[::-1])
