"""The cage itself: what cannot be done inside, what dies with what, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from streamsrv.audio._cage import pool, walls
from streamsrv.audio._cage.walls import Walls
from streamsrv.audio.decode import Cage, CageSettings
from streamsrv.errors import BadMedia, DecoderLost, SetupError
from tests.audio import corpus
from tests.audio.cages import (
    SETTINGS,
    adopting,
    alive,
    arriving,
    decoders,
    descriptors,
    drained,
    ending,
    environment,
    family,
    whole,
)


def usable() -> bool:
    """Whether bubblewrap is here and may make its namespaces."""
    program = shutil.which("bwrap")
    command = [str(program), "--unshare-all", "--ro-bind", "/", "/", "true"]
    return program is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0


bubblewrapped = pytest.param(
    "bubblewrap", marks=pytest.mark.skipif(not usable(), reason="bubblewrap is not here, or may not work here")
)
KINDS: list[object] = ["plain", bubblewrapped]
BREAKOUT = Path(__file__).with_name("breakout.py").read_text("utf-8")


def breakout(kind: Walls, *, walled: bool, secret: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What a program inside manages to do."""
    monkeypatch.setattr(walls, "_PROGRAM", BREAKOUT)
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as server, open(os.devnull, "wb") as news:
        case = {"secret": str(secret), "port": server.getsockname()[1], "server": os.getpid()}
        inherited = (theirs.fileno(), news.fileno())
        command = walls.command(kind, descriptor=inherited[0], news=inherited[1], arguments=(int(walled), 512, 10))
        environment = walls.ENVIRONMENT | {"CASE": json.dumps(case)}
        with subprocess.Popen(command, env=environment, pass_fds=inherited, stderr=subprocess.DEVNULL) as process:
            theirs.close()
            ours.settimeout(20)
            said = b"".join(iter(lambda: ours.recv(4_096), b""))
            process.kill()
    assert said.endswith(b"."), "the program did not come to its end"
    return set(said[:-1].decode().split())


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_can_be_done_inside(kind: Walls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file of the host, no network, no process, no way to raise a limit: with bubblewrap and without."""
    secret = tmp_path / "secret"
    secret.write_text("what somebody said")
    assert breakout(kind, walled=True, secret=secret, monkeypatch=monkeypatch) == set()


@pytest.mark.parametrize("kind", [bubblewrapped])
def test_bubblewrap_alone_hides_the_host(kind: Walls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second wall stands without the first: what can be done inside reaches nobody outside."""
    secret = tmp_path / "secret"
    secret.write_text("what somebody said")
    done = breakout(kind, walled=False, secret=secret, monkeypatch=monkeypatch)
    assert done.isdisjoint({"secret", "passwd", "look", "write", "connect", "kill", "memory", "limits"})


@pytest.mark.parametrize("kind", KINDS)
async def test_walls_are_told(kind: Walls) -> None:
    async with Cage(CageSettings(walls=kind)) as cage:
        assert ("bubblewrap" in cage.walls) == (kind == "bubblewrap")
        assert {"limits", "seccomp"} <= set(cage.walls)


async def test_nothing_of_the_environment_goes_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "sings")
    async with Cage(CageSettings(walls="plain")) as cage:
        inside = [environment(pid) for pid in decoders(*cage.pids)]
    assert inside
    assert not any("CANARY" in text for text in inside)


async def test_the_best_there_is_is_taken() -> None:
    async with Cage() as cage:
        assert ("bubblewrap" in cage.walls) == usable()


async def test_a_cage_that_cannot_work_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walls, "_PROGRAM", "raise SystemExit(1)")
    cage = Cage(CageSettings(walls="plain"))
    with pytest.raises(SetupError) as refused:
        await cage.start()
    assert "pip install av" in refused.value.hint
    assert cage.pids == ()


async def test_without_bubblewrap_the_best_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walls, "bubblewrap", lambda: "/bin/false")
    async with Cage() as cage:
        assert "bubblewrap" not in cage.walls


# --- who dies with whom ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_killed_decoder_fails_its_own_recordings_alone(kind: Walls, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(corpus.pcm(corpus.sound(48_000, 2, 20.0), "PCM_16", "WAV", 48_000))
    async with Cage(CageSettings(walls=kind)) as cage:
        live = [cage.open_live() for _ in range(3)]
        for one in live:
            await one.feed(corpus.recorder_webm()[:9_000])
            await one.layout()
        before = set(decoders(*cage.pids))
        async with await cage.open_file(path) as decoding:
            shared = _holding(cage, live[0])
            os.kill(shared, signal.SIGKILL)
            for one in live:
                with pytest.raises(DecoderLost) as lost:
                    await drained(one)
                assert lost.value.retryable
                await one.close()
            assert sum([len(piece) async for piece in decoding]) == 48_000 * 20 * 4
        assert shared in before
        assert (await arriving(cage.open_live(), [corpus.recorder_webm()])).audio
        assert shared not in family(*cage.pids)


def _holding(cage: Cage, live: object) -> int:
    """The process that decodes a live recording."""
    process = live._seat.process.result()  # type: ignore[attr-defined]
    return decoders(process.pid)[-1]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_killed_decoder_of_a_file_is_told_and_replaced(kind: Walls, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(corpus.pcm(corpus.sound(48_000, 2, 20.0), "PCM_16", "WAV", 48_000))
    async with Cage(CageSettings(walls=kind, processes=1)) as cage:
        async with await cage.open_file(path) as decoding:
            os.kill(decoders(decoding._process.pid)[-1], signal.SIGKILL)
            with pytest.raises(DecoderLost):
                await drained(decoding)
        assert len((await whole(cage, path)).audio) == 48_000 * 20 * 4


async def test_spare_processes_that_die_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(corpus.good()["flac-24"].data)
    async with Cage(SETTINGS) as cage:
        for _ in range(2):
            for pid in decoders(*cage.pids):
                os.kill(pid, signal.SIGKILL)
            failure = await ending(whole(cage, path))
            assert failure is None or isinstance(failure, DecoderLost)
            assert (await whole(cage, path)).audio


@pytest.mark.parametrize("kind", KINDS)
async def test_a_decoder_that_hangs_is_killed(kind: Walls, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(corpus.pcm(corpus.sound(48_000, 2, 20.0), "PCM_16", "WAV", 48_000))
    async with Cage(CageSettings(walls=kind, stall_s=0.5)) as cage:
        async with await cage.open_file(path) as decoding:
            hung = decoders(decoding._process.pid)[-1]
            os.kill(hung, signal.SIGSTOP)
            with pytest.raises(BadMedia, match=r"0\.5 s"):
                await drained(decoding)
        assert not alive(hung)
        assert (await whole(cage, path)).audio


async def test_what_waits_for_its_speaker_is_no_hang() -> None:
    async with Cage(CageSettings(stall_s=0.3)) as cage, cage.open_live() as live:
        await live.feed(corpus.recorder_webm()[:9_000])
        assert await live.read()
        await asyncio.sleep(1)
        await live.feed(corpus.recorder_webm()[9_000:])
        await live.end()
        assert [piece async for piece in live]


async def test_a_closed_cage_fails_what_is_under_way(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(corpus.pcm(corpus.sound(48_000, 2, 20.0), "PCM_16", "WAV", 48_000))
    cage = Cage(SETTINGS)
    await cage.start()
    decoding, live = await cage.open_file(path), cage.open_live()
    await live.feed(b"OggS")
    inside = family(*cage.pids)
    await cage.close()
    for work in (decoding, live):
        with pytest.raises(DecoderLost):
            await drained(work)
    await decoding.close()
    await live.close()
    assert not any(alive(pid) for pid in inside)
    await cage.close()


@pytest.mark.parametrize("kind", KINDS)
def test_no_decoder_outlives_its_server(kind: Walls) -> None:
    """Not even one that does not notice that its socket is closed."""
    program = f"""
import asyncio, os, signal
from streamsrv.audio.decode import Cage, CageSettings
from tests.audio.cages import decoders
async def main():
    cage = Cage(CageSettings(walls={kind!r}))
    await cage.start()
    await asyncio.sleep(0.5)
    pids = decoders(*cage.pids)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    print(*pids, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=root)
    pids = [int(word) for word in done.stdout.split()]
    assert pids
    _until(lambda: not any(alive(pid) for pid in pids))


def _until(true: Callable[[], bool]) -> None:
    """Processes need a moment to die."""
    for _ in range(200):
        if true():
            return
        subprocess.run(["sleep", "0.02"], check=True)
    raise AssertionError("still not")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cage_closed_while_it_starts_leaves_no_process(kind: Walls) -> None:
    with adopting():
        before = {pid for pid in family(os.getpid()) if alive(pid)}
        for pause in (0.0, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.12, 0.2):
            cage = Cage(CageSettings(walls=kind))
            start = asyncio.create_task(cage.start())
            await asyncio.sleep(pause)
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)
            await cage.close()
        assert {pid for pid in family(os.getpid()) if alive(pid)} <= before


# --- nothing is left ---------------------------------------------------------------------------------------------


async def test_the_process_for_live_recordings_comes_later_or_with_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LIVE_AFTER_S", 0.5)
    async with Cage(SETTINGS) as cage:
        assert len(cage.pids) == 1, "for a file"
        await asyncio.sleep(0.6)
        assert len(cage.pids) == 2
    monkeypatch.setattr(pool, "LIVE_AFTER_S", 1.0)
    async with Cage(SETTINGS) as cage:
        assert (await arriving(cage.open_live(), [corpus.recorder_webm()])).audio
        await asyncio.sleep(1.1)
        assert len(cage.pids) == 2, "one for files, and the one that was there already"


@pytest.mark.slow
async def test_a_hundred_files_leave_nothing_behind(tmp_path: Path) -> None:
    """Whole ones, refused ones, ones that are left half read, and reads that are cancelled."""
    good, bad, big = tmp_path / "good", tmp_path / "bad", tmp_path / "big"
    good.write_bytes(corpus.good()["ogg-opus"].data)
    bad.write_bytes(corpus.broken()["mp4 noise"].data)
    big.write_bytes(corpus.pcm(corpus.sound(48_000, 2, 5.0), "PCM_16", "WAV", 48_000))

    async def one(number: int) -> None:
        path = (good, bad, big)[number % 3]
        if path is not big:
            await ending(whole(cage, path))
            return
        async with await cage.open_file(path) as decoding:
            assert await decoding.read()
            task = asyncio.create_task(decoding.read())
            await asyncio.sleep(0)
            task.cancel()

    async with Cage(SETTINGS) as cage:
        await one(0)
        assert (await arriving(cage.open_live(), [corpus.recorder_webm()])).audio  # whose process stays
        await asyncio.sleep(0.5)
        files, processes = descriptors(), len(cage.pids)
        for start in range(0, 100, 4):
            await asyncio.gather(*(one(number) for number in range(start, start + 4)))
        await asyncio.sleep(1)
        assert descriptors() <= files
        assert len(cage.pids) <= processes
        inside = family(*cage.pids)
    assert not any(alive(pid) for pid in inside)
    assert not decoders(os.getpid())[1:]


async def test_an_opening_that_is_cancelled_frees_its_place(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(corpus.good()["flac-24"].data)
    async with Cage(CageSettings(processes=1)) as cage:
        for pause in (0.0, 0.001, 0.01, 0.05):
            task = asyncio.create_task(cage.open_file(path))
            await asyncio.sleep(pause)
            if not task.cancel():
                await task.result().close()
            await asyncio.gather(task, return_exceptions=True)
            if not task.cancelled():
                await task.result().close()
        assert (await whole(cage, path)).audio
