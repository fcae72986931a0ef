"""The front as its owner sees it: bytes in, marks out, samples held until they are released."""

from __future__ import annotations

import itertools
import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsrv.audio.front import NOTHING, QUIETEST_DBFS, Front
from streamsrv.commands import Encoding, Options
from streamsrv.errors import RingFull
from streamsrv.facts import Advanced, SpeechBegan, SpeechEnded
from tests.audio.listening import Listening, encode
from tests.audio.sounds import at_level, hiss, person, silence, to_int16

ENCODINGS: list[Encoding] = ["pcm_s16le", "pcm_s24le", "pcm_f32le", "mulaw", "alaw"]
FORMATS = [
    Options(),
    *(Options(encoding=encoding, sample_rate=8_000) for encoding in ENCODINGS),
    Options(encoding="pcm_s24le"),
    Options(encoding="pcm_f32le", channels=2),
    Options(channels=3, multichannel=True),
    Options(sample_rate=44_100, channels=2, multichannel=True),
    Options(encoding="pcm_f32le", sample_rate=48_000),
]


def said() -> bytes:
    """Two sentences with a pause."""
    return to_int16(np.concatenate([person()[:40_000], silence(1), person()[48_000:72_000], silence(1)])).tobytes()


# --- the same bytes, however they come --------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.sampled_from(FORMATS), st.lists(st.integers(0, 1 << 30), max_size=10))
def test_any_split_gives_the_same_samples_and_boundaries(options: Options, cuts: list[int]) -> None:
    sound = np.concatenate([silence(0.3), person()[:40_000], silence(0.9), person()[48_000:60_000]])
    data = encode(sound, options)
    whole = Listening(options).hear(data).finish()
    split = Listening(options)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for begin, stop in itertools.pairwise(places):
        split.hear(data[begin:stop])
    split.finish()
    assert len(whole.segments()) >= 2
    for channel in range(options.tracks):
        of_channel = [[mark for mark in run.boundaries if mark.channel == channel] for run in (whole, split)]
        assert of_channel[0] == of_channel[1]
        assert split.audio(channel) == whole.audio(channel)


@pytest.mark.parametrize("piece", [1, 2, 3, 639, 641, 32_001])
def test_pieces_of_one_size(piece: int) -> None:
    data = said()[:96_000] + b"\0"
    whole, pieces = Listening().hear(data).finish(), Listening().hear(data, piece).finish()
    assert whole.boundaries == pieces.boundaries != []
    assert whole.audio() == pieces.audio()
    assert pieces.front.dangling == 1


@pytest.mark.parametrize("options", FORMATS, ids=str)
def test_every_format_hears_the_same_sentences(options: Options) -> None:
    sound = np.concatenate([silence(0.5), person(), silence(1)])
    heard = Listening(options).hear(encode(sound, options), 4_000).finish()
    want = Listening().hear(encode(sound, Options()), 4_000).finish().segments()
    for channel in range(options.tracks):
        covered = overlap(heard.segments(channel), want)
        assert covered > 0.9 * sum(stop - start for start, stop in want)


def overlap(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> int:
    return sum(max(0, min(x[1], y[1]) - max(x[0], y[0])) for x in a for y in b)


def test_what_is_read_is_what_was_sent() -> None:
    data = said()
    heard = Listening().hear(data).finish()
    for (start, stop), audio in zip(heard.segments(), heard.audio(), strict=True):
        assert audio == data[2 * start : 2 * stop]


# --- marks ------------------------------------------------------------------------------------------------------


def test_a_sentence_from_its_first_word_to_its_end() -> None:
    heard = Listening()
    data = encode(np.concatenate([silence(0.5), person()[:40_000], silence(1)]), Options())
    for at in range(0, len(data), 640):
        heard.hear(data[at : at + 640], now=at / 32_000)
    began, ended = heard.boundaries
    assert isinstance(began, SpeechBegan)
    assert isinstance(ended, SpeechEnded)
    assert 0 < began.start < began.position < 20_000
    assert (ended.cause, ended.over) == ("vad", True)
    assert ended.stop == ended.position == ended.speech_stop + 6_400
    # The message that held the last voiced frame began 20 ms before that frame's end.
    assert ended.speech_at == pytest.approx(ended.speech_stop / 16_000 - 0.02)


def test_silence_is_free_and_a_restart_point_comes_every_second() -> None:
    heard = Listening()
    quiet = bytes(640)
    told = [heard.front.feed(quiet, 0.0) for _ in range(500)]
    assert sum(marks is NOTHING for marks in told) > 480
    advanced = [mark for marks in told for mark in marks]
    assert all(isinstance(mark, Advanced) and mark.restart % 1_920 == 0 for mark in advanced)
    assert 8 <= len(advanced) <= 10


def test_speech_advances_every_100_ms() -> None:
    heard = Listening().hear(said()[:64_000], 640)
    positions = [mark.position for mark in heard.marks if isinstance(mark, Advanced)]
    assert len(positions) > 10
    assert all(b - a == 1_600 for a, b in itertools.pairwise(positions))


def test_a_cut_closes_what_was_said_so_far() -> None:
    heard = Listening().hear(said()[:48_000])
    began, cut = heard.boundaries[0], heard.front.cut(0.0)
    assert isinstance(began, SpeechBegan)
    ((ended),) = cut
    assert isinstance(ended, SpeechEnded)
    assert (ended.stop, ended.cause) == (24_000, "flush")
    assert heard.front.cut(0.0) == []


def test_the_end_hears_the_tail_the_resampler_held_back() -> None:
    options = Options(sample_rate=48_000)
    heard = Listening(options).hear(encode(person()[:40_000], options), 1_920)
    before = heard.boundaries
    heard.finish()
    ended = heard.boundaries[-1]
    assert isinstance(ended, SpeechEnded)
    assert len(heard.boundaries) > len(before)
    assert (ended.stop, ended.cause, ended.over) == (40_000, "finish", True)


def test_channels_are_heard_apart() -> None:
    left, right = silence(6), silence(6)
    left[8_000:40_000] = person()[:32_000]
    right[48_000:80_000] = person()[:32_000]
    data = to_int16(np.stack([left, right], axis=1).reshape(-1)).tobytes()
    heard = Listening(Options(channels=2, multichannel=True)).hear(data, 1_280).finish()
    ((_, first_stop),), ((second_start, _),) = heard.segments(0), heard.segments(1)
    assert first_stop < 56_000
    assert second_start > 40_000
    mixed = Listening(Options(channels=2)).hear(data, 1_280).finish()
    assert len(mixed.segments()) == 2


# --- the ring ---------------------------------------------------------------------------------------------------


def test_room_shrinks_in_speech_and_comes_back_with_release() -> None:
    front = Front(Options())
    full = front.room
    assert full == 960_000
    marks = list(front.feed(said()[:80_000], 0.0)) + front.cut(0.0)
    ended = marks[-1]
    assert isinstance(ended, SpeechEnded)
    held = full - front.room
    assert held == 40_000
    front.release(0, ended.stop - 1)
    assert full - front.room == held
    front.release(0, ended.stop)
    assert full - front.room <= 24 * 320


@pytest.mark.parametrize(
    "options", [Options(), Options(sample_rate=48_000), Options(encoding="alaw", sample_rate=8_000)]
)
def test_a_full_ring_takes_nothing_and_says_so(options: Options) -> None:
    front = Front(options, ring_s=30)
    loud = encode(np.concatenate([person()] * 4), options)
    takes = front.takes
    front.feed(loud[:takes], 0.0)
    before = (front.position, front.room)
    assert before[1] < 16_000
    with pytest.raises(RingFull):
        front.feed(loud[: 4 * front.bytes_per_second], 0.0)
    assert (front.position, front.room) == before
    assert front.takes < front.bytes_per_second
    front.finish(0.0)


@given(st.integers(0, 100_000), st.sampled_from(FORMATS))
@settings(max_examples=20)
def test_what_it_says_it_takes_it_takes(first: int, options: Options) -> None:
    front = Front(options, ring_s=30)
    front.feed(bytes(first), 0.0)
    front.feed(bytes(front.takes), 0.0)


def test_position_counts_what_was_received() -> None:
    for options in (Options(), Options(sample_rate=48_000), Options(sample_rate=8_000, encoding="mulaw")):
        front = Front(options)
        front.feed(bytes(front.bytes_per_second // 2), 0.0)
        assert (front.position, front.bytes_per_second) == (8_000, encode(silence(1), options).__len__())


def test_memory_of_an_idle_and_of_a_silent_front_is_small() -> None:
    front = Front(Options())
    assert front._rings[0].allocated == 0
    for _ in range(200):
        front.feed(bytes(640), 0.0)
    assert front._rings[0].allocated <= 32_768


def test_a_hold_moves_the_cut_of_a_segment_that_is_too_long() -> None:
    options = Options(longest_ms=4_000, hangover_ms=2_000)
    free = Listening(options).hear(encode(person(), options), 640).finish()
    (first, *_) = free.segments()
    held = Listening(options)
    held.front.hold(0, first[1] + 1)
    held.hear(encode(person(), options), 640)
    assert held.segments()[0][1] > first[1]


# --- what went wrong in the audio -------------------------------------------------------------------------------


def test_broken_floats_are_counted_and_heard_as_silence() -> None:
    options = Options(encoding="pcm_f32le", sample_rate=48_000)
    front = Front(options)
    front.feed(struct.pack("<4f", math.nan, math.inf, -math.inf, 1e38) * 1_000, 0.0)
    front.feed(bytes(48_000), 0.0)
    front.finish(0.0)
    assert front.nonfinite == 3_000


def test_figures_of_what_was_discarded() -> None:
    front = Front(Options())
    assert (front.silence_ms(0), front.loudest_discarded_dbfs(0)) == (0, QUIETEST_DBFS)
    front.feed(to_int16(at_level(hiss(3), -50)).tobytes(), 0.0)
    front.finish(0.0)
    assert front.silence_ms(0) == 3_000
    assert front.loudest_discarded_dbfs(0) == pytest.approx(-50, abs=1)


def test_silence_and_segments_are_all_there_is() -> None:
    heard = Listening().hear(said(), 640).finish()
    spoken = sum(stop - start for start, stop in heard.segments())
    assert heard.front.silence_ms(0) == (heard.front.position - spoken) // 16
