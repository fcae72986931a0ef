"""Recordings: what the engine hears, sample for sample, whatever disk and process do."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streamsrv.commands import Options
from streamsrv.errors import Forbidden, StoreUnavailable
from streamsrv.facts import RATE_HZ
from streamsrv.runtime import recorder as module
from streamsrv.runtime import tracks
from streamsrv.runtime.recorder import Kept, Recorder, Recording
from streamsrv.runtime.settings import ArchiveSettings
from streamsrv.runtime.tracks import Part, Piece, Track, join, look
from streamsrv.stores.base import StreamKey

ON = Options(record=True)


def noise(seconds: float, seed: int = 0) -> bytes:
    """Samples no two seconds of which are alike."""
    return np.random.default_rng(seed).integers(-3_000, 3_000, int(seconds * RATE_HZ), dtype="<i2").tobytes()


def key(epoch: int = 1, stream: str = "st-1", interview: str = "talk") -> StreamKey:
    return StreamKey(interview=interview, stream=stream, epoch=epoch)


def heard(path: Path) -> bytes:
    with soundfile.SoundFile(path) as file:
        assert (file.samplerate, file.channels, file.format, file.subtype) == (RATE_HZ, 1, "FLAC", "PCM_16")
        return bytes(file.buffer_read(dtype="int16"))


def modes(folder: Path) -> dict[str, int]:
    """Names and permissions of all that is there."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


class Desk:
    """A recorder, and what it warned of."""

    def __init__(self, folder: Path, settings: ArchiveSettings | None = None) -> None:
        self.recorder = Recorder(folder, settings or ArchiveSettings())
        self.warned: list[str] = []

    def begin(self, options: Options = ON, *, epoch: int = 1, begins: int = 0, stream: str = "st-1") -> Recording:
        recording = self.recorder.begin(
            key(epoch, stream), options, begins, lambda code, message: self.warned.append(code)
        )
        assert recording is not None
        return recording

    async def settled(self) -> None:
        """The thread has done what it was given, and what it told has arrived."""
        await asyncio.get_running_loop().run_in_executor(self.recorder._thread, lambda: None)
        await asyncio.sleep(0)

    async def kept(self) -> tuple[Kept, ...]:
        await self.settled()
        return await self.recorder.kept("talk")

    async def whole(self, stream: str = "st-1", channel: int = 0) -> bytes:
        await self.settled()
        path = await self.recorder.whole("talk", stream, channel)
        assert path is not None
        return heard(path)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.recorder.folder("talk").iterdir())


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    found = Desk(tmp_path)
    yield found
    await found.recorder.close()


def give(recording: Recording, samples: bytes, *, channel: int = 0, step: int = 640) -> None:
    for at in range(0, len(samples), step):
        recording.take(channel, samples[at : at + step])


async def test_each_channel_is_kept_sample_for_sample(desk: Desk) -> None:
    recording = desk.begin(Options(record=True, channels=2, multichannel=True))
    left, right = noise(3.3, 1), noise(3.3, 2)
    give(recording, left)
    give(recording, right, channel=1)
    recording.close()
    recording.close()
    assert [await desk.whole(channel=channel) for channel in (0, 1)] == [left, right]
    assert await desk.kept() == (Kept("st-1", 0, 3.3), Kept("st-1", 1, 3.3))
    assert desk.files() == ["interview", "st-1-1-0.flac", "st-1-1-1.flac"]
    assert desk.warned == []


async def test_files_are_for_their_owner_alone(desk: Desk, tmp_path: Path) -> None:
    recording = desk.begin()
    give(recording, noise(1.5))
    recording.close()
    await desk.settled()
    assert modes(tmp_path) == {
        "recordings": 0o700,
        desk.recorder.folder("talk").name: 0o700,
        "interview": 0o600,
        "st-1-1-0.flac": 0o600,
    }
    assert "talk" not in desk.recorder.folder("talk").name


async def test_nothing_is_made_without_audio(desk: Desk, tmp_path: Path) -> None:
    desk.begin().close()
    assert await desk.kept() == ()
    assert modes(tmp_path) == {}


async def test_off_by_default_and_where_it_is_not_allowed(tmp_path: Path) -> None:
    desk = Desk(tmp_path, ArchiveSettings(allow_recording=False))
    assert Desk(tmp_path).recorder.begin(key(), Options(), 0, lambda *_: None) is None
    assert desk.recorder.begin(key(), ON, 0, lambda *_: None) is None
    with pytest.raises(Forbidden):
        desk.recorder.check(ON)
    desk.recorder.check(Options())


# --- resumed streams ---------------------------------------------------------------------------------------------


async def test_resumed_streams_are_joined_by_position(desk: Desk) -> None:
    """The client sends again from before the cut; one sends silence for what it forgot."""
    sound = noise(6.0)
    first = desk.begin()
    give(first, sound[: 2 * 50_000])
    first.close()
    again = bytes(2 * 2_000) + sound[2 * 42_000 :]
    second = desk.begin(epoch=2, begins=40_000)
    give(second, again)
    second.close()
    assert await desk.whole() == sound
    assert await desk.kept() == (Kept("st-1", 0, 6.0),)
    assert await desk.whole() == sound  # the second time it is there already
    assert "st-1-whole.0.flac" in desk.files()


async def test_what_no_connection_brought_is_silence(desk: Desk) -> None:
    sound = noise(1.0)
    for epoch, begins in ((1, 0), (2, 30_000)):
        recording = desk.begin(epoch=epoch, begins=begins)
        give(recording, sound)
        recording.close()
    assert await desk.whole() == sound + bytes(2 * 14_000) + sound


async def test_a_connection_within_another_adds_nothing(desk: Desk) -> None:
    sound = noise(3.0)
    for epoch, begins, part in ((1, 0, sound), (2, 16_000, noise(1.0, 9)), (3, 48_000, b"")):
        recording = desk.begin(epoch=epoch, begins=begins)
        give(recording, part)
        recording.close()
    assert await desk.whole() == sound


async def test_a_whole_waits_for_what_is_still_to_be_written(desk: Desk) -> None:
    recording = desk.begin()
    give(recording, noise(2.7))
    assert desk.recorder.running("st-1")
    recording.close()
    assert not desk.recorder.running("st-1")
    path = await desk.recorder.whole("talk", "st-1", 0)
    assert path is not None
    assert heard(path) == noise(2.7)


async def test_streams_do_not_mix(desk: Desk) -> None:
    for stream, seed in (("st-1", 1), ("st-12", 2)):
        recording = desk.begin(stream=stream)
        give(recording, noise(1.0, seed))
        recording.close()
    assert await desk.whole("st-1") == noise(1.0, 1)
    assert await desk.whole("st-12") == noise(1.0, 2)
    assert await desk.recorder.whole("talk", "st-2", 0) is None


# --- crashes and disks -------------------------------------------------------------------------------------------


def abandoned(path: Path, samples: bytes, begins: int = 0) -> None:
    """A file as a killed process leaves it: a copy of one that is still being written."""
    track = Track(path.with_suffix(".live"), begins, 10**9)
    for at in range(0, len(samples), 2 * RATE_HZ):
        track.write(Piece(0, samples[at : at + 2 * RATE_HZ]))
    path.write_bytes(track.path.read_bytes())
    track.finish()
    track.path.unlink()


async def test_a_crash_leaves_a_readable_file(desk: Desk) -> None:
    sound = noise(7.0)
    folder = desk.recorder.folder("talk")
    folder.mkdir(parents=True)
    abandoned(folder / "st-1-1-0.flac", sound)
    left = heard(folder / "st-1-1-0.flac")
    assert sound.startswith(left)
    assert len(left) > len(sound) - 2 * RATE_HZ
    again = desk.begin(epoch=2, begins=100_000)
    give(again, sound[200_000:])
    again.close()
    assert await desk.whole() == sound


async def test_files_that_are_no_recordings_are_left_out(desk: Desk) -> None:
    folder = desk.recorder.folder("talk")
    folder.mkdir(parents=True)
    for name, data in (("st-1-1-0.flac", b""), ("st-1-2-0.flac", b"fLaC rubbish"), ("notes.txt", b"x")):
        (folder / name).write_bytes(data)
    foreign = folder / "st-1-3-0.flac"
    soundfile.write(foreign, np.zeros(100, "<i2"), RATE_HZ, format="FLAC")
    assert await desk.kept() == ()
    assert await desk.recorder.whole("talk", "st-1", 0) is None


async def test_a_slow_disk_costs_silence_never_speech(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    held, go = threading.Event(), threading.Event()
    write = Track.write

    def slowly(track: Track, piece: Piece) -> bool:
        held.set()
        go.wait(20)
        return write(track, piece)

    monkeypatch.setattr(Track, "write", slowly)
    monkeypatch.setattr(module, "MAX_WAITING_S", 3)
    recording = desk.begin()
    sound = noise(8.0)
    give(recording, sound[: 2 * RATE_HZ])
    await asyncio.to_thread(held.wait, 20)
    give(recording, sound[2 * RATE_HZ :])
    assert sum(recording._held) <= 3 * RATE_HZ
    go.set()
    await desk.settled()
    give(recording, noise(1.0, 5))
    recording.close()
    kept = await desk.whole()
    assert kept == sound[: 2 * 3 * RATE_HZ] + bytes(2 * 5 * RATE_HZ) + noise(1.0, 5)
    assert desk.warned == ["recording_gap"]


async def test_a_gap_at_the_end_keeps_its_length(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING_S", 0)
    recording = desk.begin()
    give(recording, noise(0.5))
    recording.close()
    assert await desk.whole() == bytes(RATE_HZ)


@pytest.mark.parametrize("fail_at", ["open", "pwrite"])
async def test_a_full_disk_ends_the_recording_and_says_so(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, fail_at: str
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fail_at, full)
    recording = desk.begin()
    give(recording, noise(1.2))
    await desk.settled()
    assert desk.warned == ["recording_failed"]
    give(recording, noise(30.0))
    assert sum(recording._held) <= RATE_HZ
    recording.close()
    await desk.settled()
    assert desk.warned == ["recording_failed"]


async def test_a_recording_ends_at_its_longest_length(tmp_path: Path) -> None:
    desk = Desk(tmp_path, ArchiveSettings(max_recording_s=2))
    recording = desk.begin()
    sound = noise(5.0)
    give(recording, sound)
    await desk.settled()
    give(recording, noise(2.0))
    assert desk.warned == ["recording_full"]
    assert await desk.whole() == sound[: 2 * 2 * RATE_HZ]
    await desk.recorder.close()


async def test_a_whole_that_cannot_be_written_leaves_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for epoch, begins in ((1, 0), (2, 16_000)):
        recording = desk.begin(epoch=epoch, begins=begins)
        give(recording, noise(1.0, epoch))
        recording.close()
    await desk.settled()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StoreUnavailable):
            await desk.recorder.whole("talk", "st-1", 0)
    assert desk.files() == ["interview", "st-1-1-0.flac", "st-1-2-0.flac"]
    assert await desk.whole() == noise(1.0, 1) + noise(1.0, 2)


# --- deleting ----------------------------------------------------------------------------------------------------


async def test_deleting_ends_what_runs_and_leaves_nothing(desk: Desk, tmp_path: Path) -> None:
    running = desk.begin()
    give(running, noise(2.5))
    other = desk.recorder.begin(key(interview="other"), ON, 0, lambda *_: None)
    assert other is not None
    other.take(0, noise(1.0))
    await desk.recorder.delete("talk")
    give(running, noise(2.5))
    await desk.settled()
    assert not desk.recorder.folder("talk").exists()
    other.close()
    await desk.settled()
    assert await desk.recorder.kept("other") == (Kept("st-1", 0, 1.0),)
    await desk.recorder.delete("never")


async def test_closing_completes_what_runs(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    give(desk.begin(), noise(1.7))
    await desk.recorder.close()
    assert heard(desk.recorder.folder("talk") / "st-1-1-0.flac") == noise(1.7)


def test_joining_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracks, "CHUNK", 1_000)
    largest = 0
    append = Track._append

    def watched(track: Track, file: soundfile.SoundFile, samples: bytes) -> None:
        nonlocal largest
        largest = max(largest, len(samples))
        append(track, file, samples)

    (tmp_path / "x").mkdir()
    abandoned(tmp_path / "x" / "a.flac", noise(1.0), begins=50_000)
    part = look(tmp_path / "x" / "a.flac")
    assert part is not None
    monkeypatch.setattr(Track, "_append", watched)
    join([part], tmp_path / "x" / "b.flac")
    assert largest == 2_000
    assert heard(tmp_path / "x" / "b.flac")[: 2 * 50_000] == bytes(2 * 50_000)
    assert look(tmp_path / "x" / "b.flac") == Part(tmp_path / "x" / "b.flac", 0, part.ends)


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        track = Track(tmp_path / "r" / "i" / f"{number}.flac", 0, 10**6)
        track.write(Piece(0, noise(0.1)))
        track.finish()
        look(track.path)
    assert len(os.listdir("/proc/self/fd")) == before
