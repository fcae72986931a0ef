"""Which windows share a batch, and what becomes of the others when one fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from streamsrv.engines._whisper.batches import survive
from streamsrv.engines._whisper.decoding import Decoder
from streamsrv.engines._whisper.loading import out_of_memory
from streamsrv.engines._whisper.windows import TAIL, Task, columns, frames_of
from streamsrv.engines.base import Hypothesis, Window
from streamsrv.errors import EngineBusy, EngineFailed
from tests.engines.whisper.asking import texts, window
from tests.engines.whisper.conftest import Begin
from tests.models import tone


def spoken(engine: object, count: int) -> tuple[list[Window], list[list[str]]]:
    words = [[tone.WORDS[n % 16], tone.WORDS[3 * n % 16]] for n in range(count)]
    return [window(engine, tone.sound(each)) for each in words], words  # type: ignore[arg-type]


class Limited:
    """A machine with room for so many windows: beyond, the real decoder is not reached."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        self.sizes: list[int] = []
        answer = Decoder.answer

        def limited(decoder: Decoder, tasks: Sequence[Task]) -> None:
            self.sizes.append(len(tasks))
            if len(tasks) > most:
                raise RuntimeError("CUDA failed with error out of memory")
            answer(decoder, tasks)

        monkeypatch.setattr(Decoder, "answer", limited)


async def test_out_of_memory_makes_batches_smaller(begin: Begin, tones: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await begin(tones, batch=16)
    windows, words = spoken(engine, 10)
    limited = Limited(monkeypatch, 3)
    answers = engine.hear(windows)
    assert [texts(answer) for answer in answers if isinstance(answer, Hypothesis)] == words
    assert limited.sizes == [10, 5, 2, 3, 5, 2, 3]


async def test_no_memory_at_all_is_busy_and_no_more(begin: Begin, tones: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await begin(tones)
    windows, words = spoken(engine, 3)
    with monkeypatch.context() as patched:
        Limited(patched, 0)
        assert all(isinstance(answer, EngineBusy) for answer in engine.hear(windows))
    assert [texts(answer) for answer in engine.hear(windows) if isinstance(answer, Hypothesis)] == words


async def test_a_window_that_fails_fails_alone(begin: Begin, tones: Path) -> None:
    engine = await begin(tones)
    windows, words = spoken(engine, 7)
    windows[2].attention.forget(16_000)
    windows[2].attention.take(bytes(32_000), 900_000)
    windows[4] = Window(attention=windows[4].attention, start=0, stop=31 * 16_000, final=True)
    windows[5] = Window(attention=windows[5].attention, start=500, stop=500, final=True)
    answers = engine.hear(windows)
    assert [isinstance(answer, EngineFailed) for answer in answers] == [n in (2, 4, 5) for n in range(7)]
    assert [texts(answers[n]) for n in (0, 1, 3, 6)] == [words[n] for n in (0, 1, 3, 6)]  # type: ignore[arg-type]


async def test_nothing_asked_is_nothing_answered(begin: Begin, tones: Path) -> None:
    assert (await begin(tones)).hear([]) == []


async def test_batches_have_a_limit(begin: Begin, tones: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await begin(tones, batch=4)
    windows, words = spoken(engine, 10)
    limited = Limited(monkeypatch, 99)
    answers = engine.hear(windows)
    assert limited.sizes == [4, 4, 2]
    assert [texts(answer) for answer in answers if isinstance(answer, Hypothesis)] == words


async def test_only_what_fits_together_is_put_together(
    begin: Begin, tones: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await begin(tones, beam=2)
    audios = [tone.sound(["one"]), tone.sound(["one", "two", "three"])]
    windows = [
        window(engine, audios[n % 2], prompt="gold" if n % 3 == 0 else "", final=n % 4 < 2, prefix=["one"] * (n % 2))
        for n in range(24)
    ]
    limited = Limited(monkeypatch, 99)
    answers = engine.hear(windows)
    assert all(isinstance(answer, Hypothesis) for answer in answers)
    assert len(limited.sizes) == 8, "length, context and beam make eight kinds"
    assert sum(limited.sizes) == 24, "no batch failed and was asked again in halves"


def test_a_failure_of_another_kind_is_not_swallowed() -> None:
    def job(tasks: Sequence[Task]) -> None:
        raise KeyError("a mistake of ours")

    with pytest.raises(KeyError):
        survive([], job, out_of_memory)


def test_memory_that_runs_out_is_recognised() -> None:
    assert out_of_memory(RuntimeError("CUDA failed with error out of memory"))
    assert out_of_memory(MemoryError())
    assert not out_of_memory(RuntimeError("something else"))


@pytest.mark.parametrize(
    ("samples", "final", "floor", "full", "seconds"),
    [
        (1, False, 1, False, 1),
        (16_000, False, 1, False, 1),
        (16_001, False, 1, False, 2),
        (8_000, True, 5, False, 5),
        (90_000, True, 5, False, 8),
        (320_000, False, 5, False, 20),
        (8_000, True, 5, True, 30),
        (8_000, False, 5, True, 5),
        (480_000, True, 1, False, 30),
    ],
)
def test_windows_are_fitted(samples: int, final: bool, floor: int, full: bool, seconds: int) -> None:
    class Nobody:
        def take(self, samples: bytes, position: int) -> None: ...
        def forget(self, before: int) -> None: ...
        def close(self) -> None: ...

    asked = Window(attention=Nobody(), start=100, stop=100 + samples, final=final)
    assert frames_of(asked, floor_s=floor, full=full) == min(seconds * 100 + TAIL, 3_000) == columns(seconds)
