"""What PocketSphinx hears of human speech, through real worker processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from streamsrv.engines.base import Abilities
from streamsrv.engines.sphinx import SphinxEngine, SphinxSettings
from streamsrv.errors import EngineFailed, SetupError, UnsupportedLanguage
from tests.engines.hearing import common_start, hear, recording, reference, texts, word_errors

pytest.importorskip("pocketsphinx")
pytestmark = pytest.mark.speech


@pytest.fixture
async def engine() -> AsyncIterator[SphinxEngine]:
    engine = SphinxEngine(SphinxSettings(workers=2))
    await engine.start()
    yield engine
    await engine.close()


@pytest.mark.parametrize(
    ("name", "errors", "certain"),
    [
        ("austen-0870", 0.35, {"john", "leisure", "consider", "power"}),
        ("austen-0920", 0.40, {"married", "amiable", "still", "more", "respectable"}),
        # A hall, a crowd and an old microphone: the library's own defaults get 24 of these 22 words wrong.
        ("jfk", 0.80, {"fellow", "can", "for", "you"}),
    ],
)
async def test_hears_people(engine: SphinxEngine, name: str, errors: float, certain: set[str]) -> None:
    words = texts(await hear(engine.listen(language="en-US"), recording(name)))
    assert word_errors(reference(name), words) <= errors
    assert certain <= set(words)


async def test_speech_at_54_db_less_is_heard_as_well(engine: SphinxEngine) -> None:
    samples = np.frombuffer(recording("austen-0870"), "<i2")
    quiet = np.rint(samples * 0.002).astype("<i2").tobytes()
    words = texts(await hear(engine.listen(language=None), quiet))
    assert word_errors(reference("austen-0870"), words) <= 0.35


async def test_words_have_times_and_confidences(engine: SphinxEngine) -> None:
    listener, samples = engine.listen(language=None), recording("austen-0870")
    partial = await listener.hear(samples, final=False)
    final = await listener.hear(b"", final=True)
    assert partial.words
    assert all(word.estimated for word in partial.words)
    told = [word.confidence for word in final.words if not word.estimated]
    assert len(told) >= len(final.words) / 2
    assert len(set(told)) > len(told) / 2  # posteriors, not one constant
    assert final.language == "en-US"
    for heard in (partial, final):
        assert all(0.0 <= word.confidence <= 1.0 for word in heard.words)
        edges = [edge for word in heard.words for edge in (word.start, word.stop)]
        assert edges == sorted(edges)
        assert edges[0] >= 0
        assert edges[-1] <= len(samples) // 2
    assert not any(set(word.text) & set("<>[]()+") for word in final.words)
    consider = next(word for word in final.words if word.text == "consider")
    assert 2.0 < consider.start / 16_000 < 4.0


async def test_the_final_begins_with_what_was_stable(engine: SphinxEngine) -> None:
    listener, samples = engine.listen(language=None), recording("austen-0870")
    partials = [
        texts(await listener.hear(samples[at : at + 3_200], final=False)) for at in range(0, len(samples), 3_200)
    ]
    final = texts(await listener.hear(b"", final=True))
    agreement = engine.abilities.agreement
    windows = [partials[at : at + agreement] for at in range(len(partials) - agreement + 1)]
    stable = max((common_start(window) for window in windows), key=len)
    assert len(stable) >= len(final) / 2
    assert final[: len(stable)] == stable


async def test_any_split_on_any_worker_gives_the_same(engine: SphinxEngine) -> None:
    first, second = recording("austen-0870"), recording("austen-0920")

    async def session(piece: int) -> list[object]:
        listener = engine.listen(language=None)
        heard = [await hear(listener, samples, piece=piece) for samples in (first, second, first)]
        listener.close()
        return [*heard]

    alone = await session(3_200)
    assert alone[0] != alone[2]  # the voice is known by then: state is kept within a session
    # Two at a time on two workers, then once more after others used them.
    assert [*await asyncio.gather(session(640), session(98_765 * 2))] == [alone, alone]
    await hear(engine.listen(language=None), recording("jfk"))
    assert await session(3_200) == alone


async def test_a_new_session_knows_nothing_of_the_last(engine: SphinxEngine) -> None:
    samples = recording("austen-0920")
    before = await hear(engine.listen(language=None), samples)
    disturbed = engine.listen(language=None)
    for _ in range(2):
        await hear(disturbed, recording("jfk"))
    assert await hear(engine.listen(language=None), samples) == before


async def test_an_abandoned_segment_leaves_no_trace(engine: SphinxEngine) -> None:
    samples = recording("austen-0920")
    before = await hear(engine.listen(language=None), samples)
    listener = engine.listen(language=None)
    await listener.hear(recording("jfk"), final=False)
    listener.abandon()
    assert await hear(listener, samples) == before


@pytest.mark.parametrize("samples", [b"", bytes(320), bytes(64_000)])
async def test_nothing_said_is_an_empty_final(engine: SphinxEngine, samples: bytes) -> None:
    listener = engine.listen(language=None)
    assert (await listener.hear(samples, final=True)).words == ()


async def test_an_endless_segment_is_refused(engine: SphinxEngine) -> None:
    listener = engine.listen(language=None)
    with pytest.raises(EngineFailed):
        await listener.hear(bytes(61 * 32_000), final=False)
    with pytest.raises(EngineFailed):
        await listener.hear(b"odd", final=False)
    assert (await listener.hear(bytes(3_200), final=True)).words == ()


@pytest.mark.parametrize("language", [None, "en", "EN", "en-US", "en_us", "en-GB"])
def test_english_is_heard(language: str | None) -> None:
    SphinxEngine().listen(language=language).close()


@pytest.mark.parametrize("language", ["de", "pt-BR", "eng", "", "x" * 999])
def test_other_languages_are_refused_with_a_remedy(language: str) -> None:
    with pytest.raises(UnsupportedLanguage) as caught:
        SphinxEngine().listen(language=language)
    assert "en-US" in caught.value.message
    assert "language=en-US" in caught.value.hint
    assert len(caught.value.message) < 200


def test_tells_what_it_can_do() -> None:
    engine = SphinxEngine(SphinxSettings(workers=3))
    assert engine.abilities == Abilities(
        live=True, languages=("en-US", "en"), agreement=8, partial_every_s=engine.abilities.partial_every_s
    )
    assert engine.about.name == "sphinx"
    assert "3 workers" in engine.about.device
    assert "wrong" in engine.about.note
    assert not engine.healthy


async def test_a_missing_package_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamsrv.engines.sphinx.find_spec", lambda name: None)
    with pytest.raises(SetupError) as caught:
        await SphinxEngine().start()
    assert caught.value.hint == "pip install 'streamsrv[sphinx]'"
