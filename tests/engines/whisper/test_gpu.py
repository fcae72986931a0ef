"""The same exactness on a GPU, and what becomes of an engine whose GPU is full; only where there is a GPU."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ctranslate2
import pytest

from streamsrv.engines._whisper.decoding import Decoder
from streamsrv.engines._whisper.windows import Task
from streamsrv.engines.base import Hypothesis
from streamsrv.engines.whisper import WhisperEngine, WhisperSettings
from streamsrv.errors import EngineBusy, SetupError
from tests.engines.whisper.asking import (
    by_threads,
    ends_at_start,
    heard,
    in_batches,
    recordings,
    said,
    sentences,
    texts,
    window,
)
from tests.engines.whisper.conftest import DIGITS, Begin
from tests.models import tone
from tests.models.sized import SIZES

pytestmark = pytest.mark.skipif(not ctranslate2.get_cuda_device_count(), reason="there is no NVIDIA GPU here")

MB = 1 << 20


class Memory:
    """Memory of the first GPU, by CUDA's driver: takes it away from everybody else."""

    def __init__(self) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._taken: list[ctypes.c_uint64] = []
        context, device = ctypes.c_void_p(), ctypes.c_int()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._driver, name)(*arguments)
        assert status == 0, f"{name}: {status}"

    def free(self) -> int:
        """Bytes nobody has."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def fill(self, but: int) -> None:
        """Take all but so many bytes, or as near as that goes."""
        for piece in (1 << 30, 64 * MB, 4 * MB):
            while self.free() > but + piece:
                place = ctypes.c_uint64()
                if self._driver.cuMemAlloc_v2(ctypes.byref(place), ctypes.c_size_t(piece)) != 0:
                    break
                self._taken.append(place)

    def give_back(self) -> None:
        while self._taken:
            self._call("cuMemFree_v2", self._taken.pop())


@contextmanager
def full(but: int) -> Iterator[Memory]:
    """A GPU with so many bytes left."""
    memory = Memory()
    try:
        memory.fill(but)
        yield memory
    finally:
        memory.give_back()


@pytest.mark.parametrize("compute_type", ["float32", "float16", "int8_float16"])
@pytest.mark.parametrize("together", [1, 2, 8, 32])
async def test_no_session_hears_another(begin: Begin, tones: Path, together: int, compute_type: str) -> None:
    engine = await begin(tones, device="cuda", compute_type=compute_type, batch=32)
    assert engine.about.device == f"cuda, {compute_type}"
    wanted = sentences(32, seed=together)
    assert in_batches(engine, wanted, together) == wanted


async def test_two_workers_share_a_gpu(begin: Begin, tones: Path) -> None:
    engine = await begin(tones, device="cuda")
    assert (engine.abilities.parallel, engine.abilities.sharing) == (2, 2)
    wanted = sentences(96, seed=5)
    assert await by_threads(engine, wanted, 3) == wanted


@pytest.mark.parametrize("size", ["tiny.en", "turbo"])
async def test_true_sizes_and_full_windows_are_exact(begin: Begin, tmp_path: Path, size: str) -> None:
    folder = tone.make(tmp_path / size, size=SIZES[size], quantization="float16")
    engine = await begin(folder, device="cuda", final_window="full", batch=16)
    wanted = sentences(16, longest=30, seed=3)
    answers = heard(engine, *(window(engine, tone.sound(words)) for words in wanted))
    assert [texts(answer) for answer in answers] == wanted


async def test_the_default_device_is_the_gpu(tones: Path) -> None:
    engine = WhisperEngine(WhisperSettings(model=str(tones)))
    await engine.start()
    assert engine.about.device == "cuda, float16"
    assert said(engine, tone.sound(["red", "two"])) == ["red", "two"]
    await engine.close()


async def test_people_are_heard_as_on_a_cpu(begin: Begin) -> None:
    voices = [person.audio[: 16_000 * 8] for person in recordings(DIGITS)]
    here, there = await begin(DIGITS, beam=1), await begin(DIGITS, device="cuda", beam=1)
    alone = [said(here, audio) for audio in voices]
    together = [texts(answer) for answer in heard(there, *(window(there, audio) for audio in voices))]
    assert together == alone


async def test_a_full_gpu_harms_only_what_does_not_fit(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, sizes = Decoder.answer, list[int]()

    def answer(self: Decoder, tasks: Sequence[Task]) -> None:
        sizes.append(len(tasks))
        whole(self, tasks)

    monkeypatch.setattr(Decoder, "answer", answer)
    folder = tone.make(tmp_path / "tiny", size=tone.TINY, quantization="float16")
    engine = await begin(folder, device="cuda", batch=64, final_window="full")
    wanted = sentences(64, longest=12, seed=9)
    with full(but=96 * MB):
        answers = engine.hear([window(engine, tone.sound(words)) for words in wanted])
        refused = [answer for answer in answers if not isinstance(answer, Hypothesis)]
        assert all(isinstance(answer, EngineBusy) for answer in refused), refused
        understood = [(texts(a), w) for a, w in zip(answers, wanted, strict=True) if isinstance(a, Hypothesis)]
        assert all(got == words for got, words in understood)
    assert sizes[:2] == [64, 32], "its memory ran out"
    again = heard(engine, *(window(engine, tone.sound(words)) for words in wanted))
    assert [texts(answer) for answer in again] == wanted, "it is well again"


async def test_a_gpu_without_room_for_the_model(tmp_path: Path) -> None:
    folder = tone.make(tmp_path / "turbo", size=SIZES["turbo"], quantization="float16")
    with full(but=600 * MB):
        engine = WhisperEngine(WhisperSettings(model=str(folder), device="cuda"))
        with pytest.raises(SetupError) as failure:
            await engine.start()
        assert "not enough memory" in failure.value.message
        assert "smaller model" in failure.value.hint
        ended = ends_at_start(folder, tmp_path, device="cuda", within_s=100)
    assert ended.returncode == 3, ended.stderr
    assert "not enough memory" in ended.stderr


def test_a_missing_cuda_library_is_told(tones: Path, tmp_path: Path) -> None:
    bare = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    look = [sys.executable, "-c", "import ctypes; ctypes.CDLL('libcublas.so.12')"]
    if subprocess.run(look, env=bare, capture_output=True, check=False).returncode == 0:
        pytest.skip("the library is found without LD_LIBRARY_PATH here")
    ended = ends_at_start(tones, tmp_path, device="cuda", surroundings=bare, within_s=100)
    assert ended.returncode == 3, ended.stderr
    assert "nvidia-cublas-cu12" in ended.stderr
