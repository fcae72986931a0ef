"""Containers that are still arriving: any split gives the same samples, nothing is held back, a process is shared."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from streamsrv.audio._cage import wire
from streamsrv.audio.decode import Cage
from streamsrv.errors import BadMedia, DecoderLost
from tests.audio import corpus
from tests.audio.cages import SETTINGS, arriving, ending, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cage() -> AsyncIterator[Cage]:
    async with Cage(SETTINGS) as cage:
        yield cage


@pytest.mark.parametrize("seed", range(6))
async def test_any_split_of_webm_gives_what_the_file_gives(cage: Cage, seed: int, tmp_path: Path) -> None:
    data = corpus.recorder_webm()
    path = tmp_path / "file"
    path.write_bytes(data)
    chance = random.Random(seed)
    cuts = sorted(chance.randrange(len(data)) for _ in range(chance.choice((3, 50, 900))))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    stored = await whole(cage, path)
    got = await arriving(cage.open_live(), pieces)
    assert got.layout.duration_s is None
    assert len(got.samples) == pytest.approx(3 * 48_000, abs=2_000)
    assert got.audio == stored.audio


@pytest.mark.parametrize("name", ["webm", "wav-PCM_16", "flac-44100-2", "ogg-opus", "aac", "mp4-fragments"])
async def test_what_can_be_decoded_is_not_held_back(cage: Cage, name: str) -> None:
    """Of the first part of a container nearly all comes out although nothing follows it."""
    data = corpus.recorder_webm() if name == "webm" else corpus.good()[name].data
    part = data[: len(data) * 7 // 8]
    expected = len((await arriving(cage.open_live(), [part])).audio)
    async with cage.open_live() as live:
        await live.feed(part)
        got = 0
        while got < expected * 0.8:
            got += len(await live.read())
        assert (await live.layout()).rate_hz


async def test_layout_and_samples_come_before_a_second_is_there(cage: Cage) -> None:
    data = corpus.recorder_webm()
    async with cage.open_live() as live:
        await live.feed(data[: len(data) // 10])
        assert (await live.layout()).codec == "opus"
        assert await live.read()


async def test_a_reader_that_stops_makes_feeding_wait(cage: Cage) -> None:
    audio = corpus.wav_header(size=0xFFFFFFFF) + bytes(2 * wire.WINDOW_BYTES + 3 * wire.CREDITS * 32_768)
    async with cage.open_live() as live:
        feeding = asyncio.create_task(live.feed(audio))
        await live.layout()
        done, _ = await asyncio.wait([feeding], timeout=0.5)
        assert not done
        while not feeding.done():
            assert await live.read()
        await live.end()


async def test_a_live_recording_can_be_left_at_any_time(cage: Cage) -> None:
    data = corpus.recorder_webm()
    async with cage.open_live() as untouched:
        assert untouched.warnings == ()
    for size in (0, 10, 200, len(data)):
        async with cage.open_live() as live:
            await live.feed(data[:size])
        with pytest.raises(DecoderLost):
            await live.layout()
    assert (await arriving(cage.open_live(), [data])).audio


async def test_a_recording_that_is_nothing_is_refused(cage: Cage) -> None:
    assert type(await ending(arriving(cage.open_live(), [b"\x1aE\xdf\xa3"]))) is BadMedia


async def test_a_cancelled_read_loses_nothing(cage: Cage) -> None:
    case = corpus.good()["wav-44100-2"]
    got = b""
    async with cage.open_live() as live:
        for at in range(0, len(case.data), 10_000):
            try:
                async with asyncio.timeout(0.01):
                    while True:
                        got += await live.read()
            except TimeoutError:
                pass
            await live.feed(case.data[at : at + 10_000])
        await live.end()
        got += b"".join([piece async for piece in live])
    assert got == case.samples.tobytes()


async def test_many_share_a_process_and_do_not_mix(cage: Cage) -> None:
    names = [
        name for name, case in corpus.good().items() if case.exact == 0 and name != "mp4-alac" and name != "mp4-mov"
    ]
    jobs = [corpus.good()[name] for name in names]
    results = await asyncio.gather(*(arriving(cage.open_live(), [job.data]) for job in jobs))
    for job, result in zip(jobs, results, strict=True):
        assert result.audio == job.samples.tobytes()
    assert len(cage.pids) <= 4
