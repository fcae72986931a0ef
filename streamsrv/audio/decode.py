"""Files and live containers -> samples, decoded where a hostile recording can hurt nobody.

A server makes one ``Cage``.  ``open_file`` decodes a file, ``open_live`` a container whose bytes arrive over time; both
give interleaved s16le at the recording's own rate and channels, bounded in seconds, memory and processor time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Self

from streamsrv.audio._cage.lane import Lane, Layout
from streamsrv.audio._cage.pool import Pool, Seat, open_regular
from streamsrv.audio._cage.process import Process
from streamsrv.audio._cage.reasons import WARNINGS, unknown
from streamsrv.audio._cage.settings import CageSettings
from streamsrv.audio._cage.sniff import HEAD_BYTES, sniff
from streamsrv.errors import BadMedia, DecoderLost

__all__ = ["HEAD_BYTES", "WARNINGS", "Cage", "CageSettings", "Decoding", "Layout", "LiveDecoding", "sniff"]


class Cage:
    """The pool of decoder processes."""

    def __init__(self, settings: CageSettings | None = None) -> None:
        self._settings = settings or CageSettings()
        self._pool: Pool | None = None

    @property
    def walls(self) -> tuple[str, ...]:
        """What stands around the decoders: of ``bubblewrap``, ``limits`` and ``seccomp`` those that work here."""
        return () if self._pool is None else self._pool.walls

    @property
    def pids(self) -> tuple[int, ...]:
        """Decoder processes there are, the outermost of each."""
        return () if self._pool is None else self._pool.pids

    async def start(self) -> None:
        """Start a first process.

        Raises:
            SetupError: none comes up here; the hint says what may be missing.
        """
        self._pool = Pool(self._settings)
        try:
            await self._pool.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End every process; what is being decoded fails with ``DecoderLost``.  Safe to call twice."""
        if self._pool is not None:
            await self._pool.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _open(self) -> Pool:
        if self._pool is None:
            raise RuntimeError("the cage was not started")
        return self._pool

    async def open_file(self, path: Path) -> Decoding:
        """Begin to decode a file, once a process is free for it.

        Raises:
            UnsupportedMedia: a container, codec, rate or number of channels that is not taken.
            BadMedia: no audio in it can be decoded, or it cannot be read.
            MediaTooLong: its header says so.
            Full: too many files wait.
            DecoderLost: its process died; the file may be innocent.
        """
        descriptor = await asyncio.to_thread(_opened, path)
        try:
            process = await self._open().for_file()
            decoding = Decoding(process, process.open(descriptor, process.close))
        finally:
            os.close(descriptor)
        try:
            await decoding.ready()
        except BaseException:
            await decoding.close()
            raise
        return decoding

    def open_live(self) -> LiveDecoding:
        """Begin to decode a container whose bytes will be fed.

        Raises:
            Full: as many as allowed are live.
        """
        pool = self._open()
        return LiveDecoding(pool, pool.seat())


def _opened(path: Path) -> int:
    """A file that begins like one of ours.  Runs in a thread."""
    try:
        descriptor = open_regular(path)
    except OSError as failure:
        raise BadMedia("the recording cannot be read") from failure
    if sniff(os.pread(descriptor, HEAD_BYTES, 0)) is None:
        empty = os.fstat(descriptor).st_size == 0
        os.close(descriptor)
        raise BadMedia("the recording is empty") if empty else unknown()
    return descriptor


class Decoding:
    """A file being decoded.  Close it, or use it as ``async with``; iterate over it, or ``read``."""

    def __init__(self, process: Process, lane: Lane) -> None:
        self._process = process
        self._lane = lane
        self._layout: Layout | None = None

    async def ready(self) -> None:
        """Wait for the layout; ``Cage.open_file`` has done so."""
        self._layout = await self._lane.known()

    @property
    def layout(self) -> Layout:
        """What the samples are."""
        if self._layout is None:
            raise RuntimeError("the layout is not known yet")
        return self._layout

    @property
    def warnings(self) -> tuple[str, ...]:
        """Words of ``WARNINGS`` that were found true so far; complete after the last ``read``."""
        return self._lane.warnings

    async def read(self) -> bytes:
        """The next samples, interleaved s16le, whole frames, under a second; empty at the end.

        Cancelling it loses nothing.

        Raises:
            BadMedia, UnsupportedMedia, MediaTooLong: this is as far as it goes.
            DecoderLost: its process died; begin again.
        """
        return await self._lane.read()

    async def close(self) -> None:
        """Let go of it, and wait until its process is gone.  Safe to call twice."""
        self._lane.close()
        self._process.close()
        await asyncio.shield(self._process.gone)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read():
            yield piece

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class LiveDecoding:
    """A container that is still arriving.  Feed it in one task and read it in another: a reader that stops makes
    ``feed`` wait once the bounds of ``_cage.wire`` are full."""

    def __init__(self, pool: Pool, seat: Seat) -> None:
        self._pool = pool
        self._seat = seat
        self._left = False
        self._lane: Lane | None = None
        self._closed = False

    async def _seated(self) -> Lane:
        """The lane, once the process is up."""
        if self._lane is None and not self._closed:
            try:
                process = await asyncio.shield(self._seat.process)
            except asyncio.CancelledError:
                if self._seat.process.cancelled():
                    raise DecoderLost("the decoder was closed") from None
                raise
            if self._lane is None and not self._closed:
                self._lane = process.open(None, self._leave)
        if self._lane is None:
            raise DecoderLost("the decoder was closed")
        return self._lane

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self._pool.leave(self._seat)

    async def feed(self, data: bytes) -> None:
        """The next bytes, split as you like; waits while too many are waiting.  If it is cancelled, an unknown part of
        them was taken: close.

        Raises:
            UnsupportedMedia, BadMedia, MediaTooLong, DecoderLost: as for ``read``.
        """
        await (await self._seated()).feed(data)

    async def end(self) -> None:
        """No more bytes; what is there is decoded to its end."""
        (await self._seated()).end()

    async def layout(self) -> Layout:
        """What the samples are, as soon as the container's first frame was decoded.

        Raises:
            UnsupportedMedia, BadMedia, DecoderLost: it never will be.
        """
        return await (await self._seated()).known()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Words of ``WARNINGS`` that were found true so far."""
        return () if self._lane is None else self._lane.warnings

    async def read(self) -> bytes:
        """The next samples, interleaved s16le, whole frames, under a second; empty at the end.

        They are as fresh as they can be: nothing is held back while the decoder waits for input.  Cancelling it loses
        nothing.

        Raises:
            BadMedia, UnsupportedMedia, MediaTooLong: this is as far as it goes.
            DecoderLost: its process died; the client may begin again with a new container.
        """
        return await (await self._seated()).read()

    async def close(self) -> None:
        """Let go of it.  Safe to call twice."""
        self._closed = True
        if self._lane is not None:
            self._lane.close()
        else:
            self._leave()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read():
            yield piece

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
