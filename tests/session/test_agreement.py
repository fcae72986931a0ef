"""What is stable binds, whatever later hypotheses say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamsrv.facts import Word
from streamsrv.session.agreement import Agreement, continuation
from streamsrv.session.transcript import join, stable_chars


def words(text: str, *, at: int = 0) -> tuple[Word, ...]:
    """One word each 8 000 samples."""
    return tuple(
        Word(text=part, start=at + n * 8_000, stop=at + (n + 1) * 8_000, confidence=0.5)
        for n, part in enumerate(text.split())
    )


def texts(found: tuple[Word, ...]) -> str:
    return " ".join(word.text for word in found)


def test_a_word_is_stable_after_as_many_equal_hypotheses_as_needed() -> None:
    agreement = Agreement(3)
    for expected in ("", "", "and so"):
        agreement.update(words("and so"))
        assert texts(agreement.stable) == expected


def test_a_changed_word_begins_to_count_again_and_so_do_those_after_it() -> None:
    agreement = Agreement(2)
    agreement.update(words("and so my fellow"))
    agreement.update(words("and so by fellow"))
    assert texts(agreement.stable) == "and so"
    agreement.update(words("and so by fellow"))
    assert texts(agreement.stable) == "and so by fellow"


def test_a_hypothesis_that_contradicts_stable_words_continues_after_them() -> None:
    agreement = Agreement(2)
    agreement.update(words("ask not what"))
    agreement.update(words("ask not what"))
    agreement.update(words("asking not what your country"))
    assert texts(agreement.words) == "ask not what your country"


def test_a_split_word_shifts_the_continuation_by_its_place_not_its_index() -> None:
    stable = words("without much")
    split = (
        Word(text="with", start=0, stop=4_000, confidence=0.5),
        Word(text="out", start=4_000, stop=8_000, confidence=0.5),
        *words("much a do", at=8_000),
    )
    assert texts(continuation(stable, split)) == "a do"


def test_the_final_takes_times_and_confidences_from_the_last_hypothesis_when_the_words_agree() -> None:
    agreement = Agreement(2)
    agreement.update(words("yes"))
    agreement.update(words("yes"))
    better = (Word(text="yes", start=5, stop=7_000, confidence=0.9),)
    assert agreement.conclude(better) == better


def test_the_final_keeps_stable_words_the_last_hypothesis_has_lost() -> None:
    agreement = Agreement(2)
    agreement.update(words("one two three"))
    agreement.update(words("one two three"))
    assert texts(agreement.conclude(())) == "one two three"


vocabulary = st.sampled_from(["one", "two", "three", "four", "e\u0301te\u0301", "日本"])
hypotheses = st.lists(st.lists(vocabulary, max_size=6), max_size=25)


@given(hypotheses, st.integers(2, 4), st.lists(vocabulary, max_size=6))
def test_stable_text_is_never_taken_back(script: list[list[str]], needed: int, last: list[str]) -> None:
    agreement = Agreement(needed)
    promised = ""
    for hypothesis in script:
        agreement.update(words(" ".join(hypothesis)))
        text = join(agreement.words)
        assert text.startswith(promised)
        promised = text[: stable_chars(agreement.stable, text)]
    assert join(agreement.conclude(words(" ".join(last)))).startswith(promised)


@given(st.lists(vocabulary, min_size=1, max_size=8), st.integers(2, 4))
def test_a_steady_speaker_is_promised_every_word(said: list[str], needed: int) -> None:
    agreement = Agreement(needed)
    for _ in range(needed):
        agreement.update(words(" ".join(said)))
    assert texts(agreement.stable) == " ".join(said)


def test_glued_words_have_no_space_and_composed_characters_count_once() -> None:
    stable = (
        Word(text="e\u0301te\u0301", start=0, stop=10, confidence=1.0),
        Word(text=",", start=10, stop=11, confidence=1.0, glued=True),
    )
    text = join((*stable, Word(text="oui", start=20, stop=30, confidence=1.0)))
    assert text == "été, oui"
    assert stable_chars(stable, text) == 4


def test_a_combining_mark_glued_after_the_promise_takes_the_character_before_it_out() -> None:
    stable = (
        Word(text="caf", start=0, stop=1, confidence=1.0),
        Word(text="e", start=1, stop=2, confidence=1.0, glued=True),
    )
    text = join((*stable, Word(text="\u0301", start=2, stop=3, confidence=1.0, glued=True)))
    assert text == "café"
    assert stable_chars(stable, text) == 3
