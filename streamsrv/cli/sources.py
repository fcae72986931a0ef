"""Where ``streamsrv stream`` takes its audio from: a file, a pipe or the microphone.  All give pcm_s16le."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from streamsrv.client.clock import Time
from streamsrv.errors import BadMedia, SetupError

SAMPLE_BYTES = 2
MOST_CHANNELS = 8
PIPE_BLOCKS = 8
"""Blocks read ahead of the network from a pipe; when they are there the pipe is not read, and its writer waits."""
MIC_BLOCKS = 100
"""10 s from the microphone that wait for a network behind its own 120 s.  When they are there the newest is lost, which
is said on stderr: a microphone cannot be made to wait."""
PIECE_S = 0.1
FILE_PIECE_S = 1.0
"""Read at once from a file that is not sent in real time."""


class Source(Protocol):
    """Audio as interleaved signed 16-bit samples, little endian."""

    rate_hz: int
    channels: int
    name: str
    """For people."""

    def blocks(self) -> AsyncIterator[bytes]:
        """The audio, piece by piece, to its end."""


class FileSource:
    """Any file libsndfile reads; never more than one piece of it is in memory.

    Args:
        path: of a WAV, FLAC, OGG or MP3 file.
        piece_s: seconds read at once.

    Raises:
        SetupError: it is not there, not audio, or has more channels than a stream takes.
    """

    def __init__(self, path: Path, piece_s: float = FILE_PIECE_S) -> None:
        try:
            path.open("rb").close()
            self._file = soundfile.SoundFile(path)
        except OSError as failure:
            raise SetupError(f"{path} cannot be read: {failure.strerror}", hint="check the name") from None
        except soundfile.LibsndfileError as failure:
            raise SetupError(
                f"{path} is not understood: {failure.error_string}", hint="give a WAV, FLAC, OGG or MP3 file"
            ) from None
        self.rate_hz: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.name = f"{path.name} ({self._file.frames / self.rate_hz:.1f} s)"
        self._using = threading.Lock()
        self._frames = max(1, int(self.rate_hz * piece_s))
        if self.channels > MOST_CHANNELS:
            raise SetupError(f"{path} has {self.channels} channels", hint=f"a stream takes up to {MOST_CHANNELS}")

    async def blocks(self) -> AsyncIterator[bytes]:
        try:
            while data := await asyncio.to_thread(self._read):
                yield data
        finally:
            await asyncio.to_thread(self._close)

    def _close(self) -> None:
        # Who stops listening leaves a read running in its thread; libsndfile crashes when the file goes from under it.
        with self._using:
            self._file.close()

    def _read(self) -> bytes:
        # Floats are what libsndfile scales alike for every kind of file; 16-bit samples come back bit by bit.
        with self._using:
            try:
                samples: NDArray[np.float32] = self._file.read(self._frames, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as failure:
                raise BadMedia(f"{self.name} breaks off: {failure.error_string}", hint="mend the file") from None
        whole: NDArray[np.float32] = np.clip(np.rint(samples * 32_768.0), -32_768, 32_767)
        return whole.astype("<i2").tobytes()


class PipeSource:
    """Raw samples from a file descriptor, as they come.

    Args:
        descriptor: read to its end by a thread of its own; standard input when omitted.
    """

    def __init__(self, rate_hz: int, channels: int, descriptor: int | None = None) -> None:
        self.rate_hz, self.channels = rate_hz, channels
        self.name = "standard input"
        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor

    async def blocks(self) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue(PIPE_BLOCKS)
        loop = asyncio.get_running_loop()
        # A daemon: a read that never returns must not keep the program from ending.
        threading.Thread(target=self._pump, args=(queue, loop), daemon=True, name="stdin").start()
        while data := await queue.get():
            yield data

    def _pump(self, queue: asyncio.Queue[bytes], loop: asyncio.AbstractEventLoop) -> None:
        most = max(1, int(self.rate_hz * PIECE_S)) * self.channels * SAMPLE_BYTES
        data = b"more"
        while data:
            try:
                data = os.read(self._descriptor, most)
            except OSError:
                data = b""
            putting = queue.put(data)
            try:
                asyncio.run_coroutine_threadsafe(putting, loop).result()
            except RuntimeError:  # the loop was closed: nobody wants more
                putting.close()
                return


class MicSource:
    """The default microphone.

    Raises:
        SetupError: the extra, the system's sound library or the microphone is missing.
    """

    def __init__(self, rate_hz: int | None) -> None:
        try:
            import sounddevice
        except ImportError:
            raise SetupError("the microphone needs an extra", hint="pip install 'streamsrv[mic]'") from None
        except OSError:
            raise SetupError(
                "the system's sound library PortAudio is missing", hint="apt-get install libportaudio2"
            ) from None
        self._sounddevice = sounddevice
        try:
            device = sounddevice.query_devices(kind="input")
        except (sounddevice.PortAudioError, ValueError):
            raise SetupError("no microphone was found", hint="plug one in, or stream a file") from None
        self.rate_hz = rate_hz or int(device["default_samplerate"])
        self.channels = 1
        self.name = f"microphone ({device['name']})"
        self._lost = 0

    async def blocks(self) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue(MIC_BLOCKS)
        loop = asyncio.get_running_loop()
        try:
            taking = self._sounddevice.RawInputStream(
                samplerate=self.rate_hz,
                channels=1,
                dtype="int16",
                blocksize=int(self.rate_hz * PIECE_S),
                callback=lambda data, *_: loop.call_soon_threadsafe(self._take, queue, bytes(data)),
            )
        except self._sounddevice.PortAudioError:
            raise SetupError(
                f"the microphone does not work at {self.rate_hz} Hz", hint="try --rate 48000 or --rate 16000"
            ) from None
        with taking:
            while True:
                yield await queue.get()

    def _take(self, queue: asyncio.Queue[bytes], data: bytes) -> None:
        if not queue.full():
            queue.put_nowait(data)
            return
        self._lost += 1
        print(
            f"warning: {self._lost * PIECE_S:.1f} s from the microphone are lost: the server is away", file=sys.stderr
        )


def open_source(name: str, *, rate_hz: int | None, channels: int, realtime: bool) -> Source:
    """The source the command line names: ``mic``, ``-`` or a file."""
    if name == "mic":
        return MicSource(rate_hz)
    if name == "-":
        return PipeSource(rate_hz or 16_000, channels)
    return FileSource(Path(name), PIECE_S if realtime else FILE_PIECE_S)


async def paced(blocks: AsyncIterator[bytes], bytes_per_s: int, time: Time) -> AsyncIterator[bytes]:
    """Give each block when a microphone would have had it: at the end of its audio.

    The times are counted from the beginning, so delays do not add up.
    """
    began, given = time.now(), 0
    async for data in blocks:
        given += len(data)
        ahead_s = began + given / bytes_per_s - time.now()
        if ahead_s > 0:
            await time.sleep(ahead_s)
        yield data
