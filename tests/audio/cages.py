"""What tests of decoding share: whole recordings through a cage, likeness of sounds, and a look at processes."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Awaitable, Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamsrv.audio.decode import Cage, CageSettings, Decoding, Layout, LiveDecoding
from streamsrv.errors import StreamsrvError

_PR_SET_CHILD_SUBREAPER = 36
SETTINGS = CageSettings(stall_s=20, cpu_s=30, max_duration_s=60)


class Outcome:
    """All of a recording."""

    def __init__(self, layout: Layout, audio: bytes, warnings: tuple[str, ...]) -> None:
        self.layout = layout
        self.audio = audio
        self.warnings = warnings

    @property
    def samples(self) -> npt.NDArray[np.int16]:
        """Frames x channels."""
        return np.frombuffer(self.audio, "<i2").reshape(-1, self.layout.channels)


async def whole(cage: Cage, path: Path) -> Outcome:
    """Decode a file from end to end."""
    async with await cage.open_file(path) as decoding:
        audio = b"".join([piece async for piece in decoding])
        return Outcome(decoding.layout, audio, decoding.warnings)


async def arriving(live: LiveDecoding, pieces: Iterable[bytes]) -> Outcome:
    """Decode a container that is fed in pieces; what goes wrong is raised as the reader meets it."""

    async def feed() -> None:
        for piece in pieces:
            await live.feed(piece)
        await live.end()

    async with live:
        feeding = asyncio.create_task(feed())
        try:
            audio = b"".join([piece async for piece in live])
            return Outcome(await live.layout(), audio, live.warnings)
        finally:
            await live.close()
            await asyncio.gather(feeding, return_exceptions=True)


async def ending(work: Awaitable[Outcome]) -> StreamsrvError | None:
    """How it failed, if it did."""
    try:
        await work
    except StreamsrvError as failure:
        return failure
    return None


async def watched(decoding: Decoding) -> tuple[list[bytes], float, StreamsrvError | None]:
    """What comes of a file, the most memory its own process had, and how it failed."""
    pieces: list[bytes] = []
    (pid,) = decoders(decoding._process.pid)
    peak, failure = peak_mb(pid), None
    try:
        while piece := await decoding.read():
            pieces.append(piece)
            peak = max(peak, peak_mb(pid))
    except StreamsrvError as error:
        failure = error
    return pieces, peak, failure


async def drained(decoding: Decoding | LiveDecoding) -> int:
    """Bytes that come before the end or before a failure, which is raised."""
    size = 0
    async for piece in decoding:
        size += len(piece)
    return size


def likeness(heard: npt.NDArray[np.int16], meant: npt.NDArray[np.int16]) -> float:
    """Greatest correlation of two sounds over every shift up to 4 096 samples; 1 is the same sound."""
    best = 0.0
    for channel in range(meant.shape[1]):
        a, b = heard[:, channel].astype(float), meant[:, channel].astype(float)
        size = 1 << (len(a) + len(b)).bit_length()
        both = np.fft.irfft(np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size)), size)
        near = np.concatenate([both[:4_096], both[-4_096:]])
        found = float(near.max() / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-9))
        best = found if channel == 0 else min(best, found)
    return best


# --- processes ---------------------------------------------------------------------------------------------------


def family(*roots: int) -> list[int]:
    """These processes and all below them, parents first."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry))
    found = list(roots)
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def decoders(*roots: int) -> list[int]:
    """Of a family those that run Python."""
    return [pid for pid in family(*roots) if "python" in _text(pid, "comm")]


def peak_mb(pid: int) -> float:
    """Most memory a process ever had resident; 0 when it is gone."""
    return (
        max([int(line.split()[1]) for line in _text(pid, "status").splitlines() if "VmHWM" in line], default=0) / 1_024
    )


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Orphans of our children become our children, so that ``family`` finds them."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def environment(pid: int) -> str:
    """Of a process, as it began."""
    return _text(pid, "environ")


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    state = _text(pid, "stat").rpartition(")")[2].split()
    return bool(state) and state[0] != "Z"


def descriptors() -> int:
    """Open files of this process."""
    return len(os.listdir("/proc/self/fd"))


def _text(pid: int, name: str) -> str:
    try:
        return Path("/proc", str(pid), name).read_text()
    except OSError:
        return ""
