"""The pure parts of the embedded engine: voice, posteriors, messages."""

from __future__ import annotations

import socket

import numpy as np
import pytest

from streamsrv.engines._sphinx import wire
from streamsrv.engines._sphinx.posterior import DISPUTED, GUESS, Spoken, with_posteriors
from streamsrv.engines._sphinx.voice import GAIN_MOST, LEVEL, Voice, amplified, block_mean, fitting_gain


def test_a_mean_moves_towards_what_is_heard() -> None:
    heard = tuple(float(n) for n in range(13))
    voice = Voice()
    assert voice.stranger
    for _ in range(400):
        voice = voice.moved(heard, 24)
    assert voice.mean == pytest.approx(heard, abs=0.01)
    assert not voice.stranger
    assert voice.weight == 500.0


def test_the_mean_of_a_block_is_found_again() -> None:
    before, block, frames = (40.0, 3.0), (20.0, -5.0), 24
    after = tuple((500 * old + frames * new) / (500 + frames) for old, new in zip(before, block, strict=True))
    assert block_mean(before, after, frames) == pytest.approx(block)
    assert block_mean(before, before, frames) == pytest.approx(before)


def test_gain_moves_the_first_coefficient_only() -> None:
    voice = Voice(mean=(40.0, 1.0, *(0.0,) * 11), weight=100.0, gain=1.0)
    louder = voice.at_gain(2.0)
    assert louder.mean[0] == pytest.approx(40.0 + 6.93, abs=0.01)
    assert louder.mean[1:] == voice.mean[1:]
    assert Voice().at_gain(2.0).mean == Voice().mean


@pytest.mark.parametrize("amplitude", [10, 300, 28_000])
def test_gain_brings_speech_to_one_level(amplitude: int) -> None:
    tone = np.rint(amplitude * np.sin(np.arange(16_000) / 5.0)).astype(np.int16)
    lifted = np.frombuffer(amplified(tone, fitting_gain(tone)), "<i2").astype(np.float64)
    assert np.sqrt((lifted**2).mean()) == pytest.approx(LEVEL, rel=0.1)


def test_gain_spares_peaks_and_silence() -> None:
    click = np.zeros(16_000, dtype=np.int16)
    click[8_000:8_320:40] = 30_000
    click[::2] += 3
    assert np.abs(np.frombuffer(amplified(click, fitting_gain(click)), "<i2")).max() <= 20_001
    assert fitting_gain(np.zeros(16_000, dtype=np.int16)) == 1.0
    assert fitting_gain(np.zeros(0, dtype=np.int16)) == 1.0
    assert fitting_gain(np.tile(np.array([1, -1], dtype=np.int16), 8_000)) == GAIN_MOST
    assert np.frombuffer(amplified(np.array([30_000, -30_000], dtype=np.int16), 4.0), "<i2").tolist() == [
        32_767,
        -32_768,
    ]


def test_words_take_their_confidence_from_the_best_path() -> None:
    first = [
        Spoken("<s>", 0, 9, 1.0),
        Spoken("a(2)", 10, 19, 1.0),
        Spoken("[NOISE]", 20, 29, 1.0),
        Spoken("dog", 30, 49, 1.0),
        Spoken("barked", 50, 79, 1.0),
        Spoken("</s>", 80, 89, 1.0),
    ]
    best = [Spoken("a", 11, 18, 0.75), Spoken("frog", 31, 49, 0.5), Spoken("barked", 48, 79, 1.5)]
    heard = list(with_posteriors(first, best))
    assert [(word.text, word.confidence, word.estimated) for word in heard] == [
        ("a", 0.75, False),
        ("dog", DISPUTED, True),
        ("barked", 1.0, False),
    ]
    assert [(word.start, word.stop) for word in heard] == [(1_600, 3_200), (4_800, 8_000), (8_000, 12_800)]
    assert {word.confidence for word in with_posteriors(first, [])} == {GUESS}


def test_a_best_path_word_elsewhere_in_time_says_nothing() -> None:
    first = [Spoken("no", 10, 19, 1.0), Spoken("no", 200, 219, 1.0)]
    heard = list(with_posteriors(first, [Spoken("no", 205, 215, 0.4)]))
    assert [(word.confidence, word.estimated) for word in heard] == [(DISPUTED, True), (0.4, False)]


def test_messages_come_back() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ask = wire.Ask(begin=Voice(), samples=b"\1\2" * 80_000, final=True)
        theirs.settimeout(5)
        packed = wire.pack(ask)
        ours.sendall(packed[:100_000])
        length = wire.body_length(wire.receive(theirs, 4))
        assert length == len(packed) - 4
        part = wire.receive(theirs, 99_996)
        ours.sendall(packed[100_000:])
        assert wire.asks.decode(part + wire.receive(theirs, length - 99_996)) == ask
        ours.close()
        with pytest.raises(EOFError):
            wire.receive(theirs, 1)


def test_a_monstrous_message_is_refused() -> None:
    with pytest.raises(ValueError, match="over the limit"):
        wire.body_length((wire.FRAME_BYTES + 1).to_bytes(4, "big"))
