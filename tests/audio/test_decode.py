"""Every container comes out as it went in: rate, channels, samples, and what is told about it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from streamsrv.audio.decode import HEAD_BYTES, WARNINGS, Cage, CageSettings, sniff
from streamsrv.errors import BadMedia, Full, MediaTooLong, UnsupportedMedia
from tests.audio import corpus
from tests.audio.cages import SETTINGS, arriving, drained, likeness, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")
BACKWARDS = {"mp4-aac", "mp4-alac", "mp4-opus", "mp4-mov", "mp4-3gp"}
"""Their index stands at the end: they cannot be decoded before they are all there."""
PADDED = {"mp3", "mp3-mpeg2"}
"""Only whole files tell how many samples of the first and last frame are padding."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cage() -> AsyncIterator[Cage]:
    async with Cage(SETTINGS) as cage:
        yield cage


@pytest.mark.parametrize("name", corpus.good())
async def test_a_file_comes_out_as_it_went_in(cage: Cage, name: str, tmp_path: Path) -> None:
    case = corpus.good()[name]
    path = tmp_path / "innocent.txt"
    path.write_bytes(case.data)
    got = await whole(cage, path)
    assert (got.layout.container, got.layout.codec) == (case.container, case.codec)
    assert (got.layout.rate_hz, got.layout.channels) == (case.rate_hz, case.samples.shape[1])
    assert got.warnings == ()
    seconds = len(case.samples) / case.rate_hz
    assert got.layout.duration_s == pytest.approx(seconds, abs=0.05)
    if case.exact is None:
        assert len(got.samples) == pytest.approx(len(case.samples), abs=0.05 * case.rate_hz)
        assert likeness(got.samples, case.samples) > (0.9 if case.codec == "amrnb" else 0.95)
    else:
        assert got.samples.shape == case.samples.shape
        assert np.abs(got.samples.astype(int) - case.samples).max() <= case.exact


@pytest.mark.parametrize("name", sorted(corpus.good().keys() - BACKWARDS))
async def test_live_gives_what_the_file_gives(cage: Cage, name: str, tmp_path: Path) -> None:
    case = corpus.good()[name]
    path = tmp_path / "file"
    path.write_bytes(case.data)
    stored = await whole(cage, path)
    got = await arriving(cage.open_live(), (case.data[at : at + 977] for at in range(0, len(case.data), 977)))
    assert got.layout.rate_hz == stored.layout.rate_hz
    assert got.warnings == ()
    if name in PADDED:
        assert got.audio.find(stored.audio[4_096:-4_096]) >= 0
    else:
        assert got.audio == stored.audio


@pytest.mark.parametrize("name", corpus.good())
async def test_content_tells_the_container(name: str) -> None:
    case = corpus.good()[name]
    assert sniff(case.data[:HEAD_BYTES]) == case.container


async def test_content_tells_nothing_of_strangers() -> None:
    for head in (b"", b"\xff", b"\xff\xfb\xf0\x00", b"RIFF\0\0\0\0AVI ", b"FORM\0\0\0\0ILBM", b"MZ", b"%PDF-1.7"):
        assert sniff(head) is None


async def test_warnings_have_sentences() -> None:
    assert all(sentence and "\n" not in sentence for sentence in WARNINGS.values())


async def test_longer_than_allowed_is_refused_by_header_and_by_count(tmp_path: Path) -> None:
    flac = corpus.pcm(corpus.sound(16_000, 1, 4.0), "PCM_16", "FLAC")
    told, silent = tmp_path / "told", tmp_path / "silent"
    told.write_bytes(flac)
    silent.write_bytes(corpus.without_length(flac))
    async with Cage(CageSettings(max_duration_s=3)) as cage:
        with pytest.raises(MediaTooLong):
            await cage.open_file(told)
        async with await cage.open_file(silent) as decoding:
            with pytest.raises(MediaTooLong, match="3 s"):
                await drained(decoding)
        with pytest.raises(MediaTooLong):
            await arriving(cage.open_live(), [corpus.without_length(flac)])


async def test_rates_and_channels_above_the_settings_are_refused(tmp_path: Path) -> None:
    async with Cage(CageSettings(max_rate_hz=16_000, max_channels=1)) as cage:
        for name in ("wav-44100-2", "flac-44100-2", "ogg-opus", "mp3", "mp4-aac", "webm-opus"):
            path = tmp_path / name
            path.write_bytes(corpus.good()[name].data)
            with pytest.raises(UnsupportedMedia):
                await cage.open_file(path)


async def test_what_is_no_file_is_refused(cage: Cage, tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path, Path("/dev/zero")):
        with pytest.raises(BadMedia):
            await cage.open_file(path)


async def test_a_queue_that_is_full_says_so(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(corpus.good()["wav-48000-8"].data)
    async with Cage(CageSettings(processes=1, waiting=0, max_live=1)) as cage:
        first = await cage.open_file(path)
        with pytest.raises(Full):
            await cage.open_file(path)
        await first.close()
        await (await cage.open_file(path)).close()
        live = cage.open_live()
        with pytest.raises(Full):
            cage.open_live()
        await live.close()
        await cage.open_live().close()
