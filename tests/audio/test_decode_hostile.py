"""Broken and hostile files: refused, or decoded as far as they go, in bounded time and memory; nobody else suffers."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from streamsrv.audio._cage import wire
from streamsrv.audio.decode import Cage, CageSettings
from streamsrv.errors import BadMedia, DecoderLost, MediaTooLong, UnsupportedMedia
from tests.audio import corpus
from tests.audio.cages import SETTINGS, Outcome, arriving, ending, family, watched, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")
REFUSALS = (BadMedia, UnsupportedMedia, MediaTooLong)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cage() -> AsyncIterator[Cage]:
    async with Cage(SETTINGS) as cage:
        yield cage


def slices(data: bytes, size: int = 4_000) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def check(case: corpus.Broken, got: Outcome) -> None:
    assert case.error is None, "it was decoded"
    assert case.warnings <= set(got.warnings)
    if case.samples is not None:
        assert len(got.samples) == case.samples


async def test_there_are_enough_of_them() -> None:
    assert len(corpus.broken()) >= 30


@pytest.mark.parametrize("name", corpus.broken())
async def test_a_broken_file_does_what_is_promised(cage: Cage, name: str, tmp_path: Path) -> None:
    case = corpus.broken()[name]
    path = tmp_path / "upload.wav"
    path.write_bytes(case.data)
    if case.error is None:
        check(case, await whole(cage, path))
        return
    with pytest.raises(case.error) as refused:
        await whole(cage, path)
    assert refused.value.hint
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize("name", corpus.broken())
async def test_a_broken_stream_ends_in_order(cage: Cage, name: str) -> None:
    """Live, a promise cannot lean on the size of the file; but it is one of ours, and others go on."""
    failure = await ending(arriving(cage.open_live(), slices(corpus.broken()[name].data)))
    assert failure is None or isinstance(failure, REFUSALS)
    case = corpus.good()["webm-opus"]
    assert (await arriving(cage.open_live(), slices(case.data))).layout.codec == "opus"


async def test_what_is_not_a_number_is_silence(cage: Cage, tmp_path: Path) -> None:
    path = tmp_path / "nan"
    path.write_bytes(corpus.broken()["not numbers"].data)
    got = (await whole(cage, path)).samples[:, 0]
    loud = [n for n in range(1_600) if n % 7 == 1]
    assert (got[loud] == 32_767).all()
    assert (got[[n for n in range(1_600) if n % 7 != 1]] == 0).all()


async def test_chained_recordings_are_all_heard(cage: Cage, tmp_path: Path) -> None:
    path = tmp_path / "chain"
    path.write_bytes(corpus.broken()["chain"].data)
    got = await whole(cage, path)
    assert len(got.samples) == pytest.approx(48_000 * 2.5, rel=0.02)


@pytest.mark.parametrize("name", [name for name in corpus.good() if name.count("-") < 2])
async def test_hurt_by_chance(cage: Cage, name: str, tmp_path: Path) -> None:
    """Whatever comes out, the processes of others live on; a decoder that dies takes only its own recording along."""
    seed = sum(name.encode())
    for number, data in enumerate(corpus.mutations(corpus.good()[name].data, seed)):
        path = tmp_path / str(number)
        path.write_bytes(data)
        for work in (whole(cage, path), arriving(cage.open_live(), slices(data))):
            failure = await ending(work)
            assert failure is None or isinstance(failure, (*REFUSALS, DecoderLost))


# --- bombs -------------------------------------------------------------------------------------------------------


async def test_a_bomb_is_counted_while_it_goes_off(tmp_path: Path) -> None:
    """240 kB that would be 460 MB: it ends at the limit, and its process never held more than a few pieces."""
    path = tmp_path / "bomb"
    path.write_bytes(corpus.without_length(corpus.flac_bomb(600)))
    assert path.stat().st_size < 300_000
    settings = CageSettings(max_duration_s=300, walls="plain")
    async with Cage(settings) as cage, await cage.open_file(path) as decoding:
        pieces, peak, failure = await watched(decoding)
    assert isinstance(failure, MediaTooLong)
    assert 290 < sum(map(len, pieces)) / (48_000 * 8 * 2) <= 300
    assert 20 < peak < 120


async def test_a_reader_that_stops_makes_the_decoder_stop(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(corpus.without_length(corpus.flac_bomb(600)))
    async with Cage(CageSettings(stall_s=0.4)) as cage, await cage.open_file(path) as decoding:
        await asyncio.sleep(1.5)  # the processes that come next start, too
        before = spent(cage)
        await asyncio.sleep(1)  # twice the patience with a decoder that owes something: this one does not
        assert spent(cage) == pytest.approx(before, abs=0.03)
        for _ in range(3 * wire.CREDITS):
            assert await decoding.read()


def spent(cage: Cage) -> float:
    """Processor seconds of the cage's processes."""
    ticks = 0
    for pid in family(*cage.pids):
        fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / 100


async def test_processor_time_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "endless"
    path.write_bytes(corpus.good()["ogg-opus"].data * 3_000)
    async with Cage(CageSettings(cpu_s=1)) as cage:
        began = time.monotonic()
        with pytest.raises(BadMedia, match="processor time"):
            await whole(cage, path)
        assert time.monotonic() - began < 40


async def test_memory_has_an_end(tmp_path: Path) -> None:
    """A block of 200 MB that is really there (a sparse file): the address space ends before it is decoded."""
    mkv = corpus.good()["mkv-pcm"].data
    before = mkv[: mkv.index(b"\x1fC\xb6u")]
    block = b"\xa3" + struct.pack(">Q", 200_000_000 | 1 << 56) + b"\x81\x00\x00\x80"
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.write(before + b"\x1fC\xb6u\x01\xff\xff\xff\xff\xff\xff\xff" + b"\xe7\x81\x00" + block)
        file.truncate(220_000_000)
    async with Cage(SETTINGS) as cage:
        with pytest.raises(BadMedia, match="memory"):
            await whole(cage, path)
        path.write_bytes(mkv)
        assert (await whole(cage, path)).audio
