"""Audio from files, pipes and the microphone."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import types
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from streamsrv.cli.sources import FileSource, MicSource, PipeSource, open_source, paced
from streamsrv.errors import SetupError


def noise(frames: int, channels: int) -> NDArray[np.int16]:
    samples = np.random.default_rng(5).integers(-32_768, 32_768, (frames, channels), dtype=np.int16)
    samples[:2] = [[-32_768] * channels, [32_767] * channels]
    return samples


async def whole(blocks: AsyncIterator[bytes]) -> list[bytes]:
    return [block async for block in blocks]


@pytest.mark.parametrize(
    ("kind", "channels", "rate_hz"), [("wav", 1, 16_000), ("flac", 2, 44_100), ("wav", 8, 8_000), ("aiff", 1, 22_050)]
)
async def test_sixteen_bits_come_back_bit_by_bit(tmp_path: Path, kind: str, channels: int, rate_hz: int) -> None:
    samples = noise(rate_hz * 5 // 2, channels)
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, samples, rate_hz)
    source = FileSource(path)
    blocks = await whole(source.blocks())
    assert (source.rate_hz, source.channels) == (rate_hz, channels)
    assert b"".join(blocks) == samples.astype("<i2").tobytes()
    assert [len(block) for block in blocks] == [rate_hz * 2 * channels] * 2 + [rate_hz * channels]


async def test_floats_are_scaled_and_held_in_range(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.array([0.0, 0.5, -1.0, 1.0, 3.0, -3.0], dtype=np.float32), 16_000, subtype="FLOAT")
    (block,) = await whole(FileSource(path).blocks())
    assert np.frombuffer(block, "<i2").tolist() == [0, 16_384, -32_768, 32_767, 32_767, -32_768]


@pytest.mark.parametrize(("kind", "subtype"), [("ogg", "VORBIS"), ("mp3", "MPEG_LAYER_III"), ("ogg", "OPUS")])
async def test_compressed_files_sound_alike(tmp_path: Path, kind: str, subtype: str) -> None:
    tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 16_000)).astype(np.float32)
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, tone, 16_000, format=kind.upper(), subtype=subtype)
    source = FileSource(path)
    heard = np.frombuffer(b"".join(await whole(source.blocks())), "<i2").astype(np.float64) / 32_768
    assert abs(len(heard) / source.rate_hz - 3.0) < 0.2
    assert 0.3 < float(np.sqrt(np.mean(heard**2))) * np.sqrt(2) < 0.6


async def test_a_file_is_not_closed_under_a_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(16_000, 1), 16_000)
    source = FileSource(path)
    begun, go, order = threading.Event(), threading.Event(), list[str]()

    class SlowFile:
        def read(self, frames: int, **_: object) -> NDArray[np.float32]:
            begun.set()
            go.wait()
            order.append("read")
            return np.zeros((frames, 1), dtype=np.float32)

        def close(self) -> None:
            order.append("closed")

    source._file.close()
    source._file = SlowFile()
    reading = asyncio.create_task(whole(source.blocks()))
    await asyncio.to_thread(begun.wait)
    reading.cancel()
    closing = asyncio.gather(reading, return_exceptions=True)
    for _ in range(20):
        await asyncio.sleep(0)
    assert order == []
    go.set()
    await closing
    assert order == ["read", "closed"]


def test_files_that_will_not_do(tmp_path: Path) -> None:
    text = tmp_path / "a.wav"
    text.write_text("this is no audio")
    many = tmp_path / "b.wav"
    soundfile.write(many, np.zeros((10, 9), dtype=np.int16), 16_000)
    for path, said in ((tmp_path / "none.wav", "cannot be read"), (text, "not understood"), (many, "9 channels")):
        with pytest.raises(SetupError, match=said):
            FileSource(path)


async def test_a_pipe_is_read_to_its_end_and_waits_for_its_reader() -> None:
    data = os.urandom(500_000)
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(data)

    feeding = asyncio.create_task(asyncio.to_thread(write))
    blocks = await whole(PipeSource(16_000, 2, reading).blocks())
    await feeding
    os.close(reading)
    assert b"".join(blocks) == data
    assert max(map(len, blocks)) <= 6_400


class ClockByHand:
    def __init__(self) -> None:
        self.seconds = 100.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


async def test_pace_is_counted_from_the_beginning() -> None:
    time = ClockByHand()

    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield bytes(3_200)
        time.seconds += 0.25  # the disk was slow
        yield bytes(3_200)
        yield bytes(3_200)

    at = [round(time.seconds - 100, 3) async for _ in paced(blocks(), 32_000, time)]
    assert at == [0.1, 0.2, 0.3, 0.55, 0.55]
    assert len(time.slept) == 3


def test_the_microphone_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(SetupError) as caught:
        open_source("mic", rate_hz=None, channels=1, realtime=False)
    assert caught.value.hint == "pip install 'streamsrv[mic]'"


def test_a_machine_without_a_microphone(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("sounddevice")

    class PortAudioError(Exception):
        pass

    def query_devices(kind: str) -> None:
        raise PortAudioError(kind)

    module.PortAudioError = PortAudioError  # type: ignore[attr-defined]
    module.query_devices = query_devices  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    with pytest.raises(SetupError, match="no microphone"):
        MicSource(None)
