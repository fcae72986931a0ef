"""LocalAgreement as the naive server does it, on answers written by hand."""

from __future__ import annotations

import numpy as np

from benchmarks.peers.naive import TRIM_S, Agreement, Word
from benchmarks.tape import RATE_HZ


def answer(text: str) -> list[Word]:
    """A word each second of the audio."""
    return [Word(float(n), n + 0.9, word) for n, word in enumerate(text.split())]


def committed(agreement: Agreement, *texts: str) -> list[str]:
    for text in texts:
        agreement.hear(lambda _, text=text: answer(text))  # type: ignore[misc]
    return [word.text for word in agreement.committed]


def test_two_answers_must_agree() -> None:
    agreement = Agreement()
    assert committed(agreement, "one too") == []
    assert committed(agreement, "one two") == ["one"]
    assert committed(agreement, "one two three") == ["one", "two"]


def test_what_is_committed_is_not_taken_back() -> None:
    assert committed(Agreement(), "one two", "one two", "ten two three", "ten two three") == ["one", "two", "three"]


def test_long_audio_is_cut_where_the_committed_words_end() -> None:
    agreement = Agreement()
    agreement.audio = np.zeros(round((TRIM_S + 1) * RATE_HZ), np.float32)
    committed(agreement, "one two", "one two")
    assert len(agreement.audio) == round((TRIM_S + 1 - 1.9) * RATE_HZ)
    assert committed(agreement, "three", "three") == ["one", "two", "three"]
    assert agreement.committed[-1].stop_s == 0.9 + 1.9


def test_a_committed_word_that_is_heard_a_little_later_is_not_said_twice() -> None:
    agreement = Agreement()
    committed(agreement, "one two", "one two")
    later = [Word(1.85, 2.6, "two"), Word(2.7, 3.5, "three")]
    for _ in range(2):
        agreement.hear(lambda _: later)
    assert [word.text for word in agreement.committed] == ["one", "two", "three"]
