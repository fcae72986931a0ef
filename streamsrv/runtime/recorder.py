"""Keeps what the engine hears, in ``DATA/recordings/HASH/STREAM-EPOCH-CHANNEL.flac``; the hash is the interview's.

One thread writes for all sessions.  Speech never waits for it: what finds no room becomes silence in the file, and the
session says so.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from streamsrv import telemetry
from streamsrv.commands import Options
from streamsrv.errors import Forbidden, StoreUnavailable
from streamsrv.facts import RATE_HZ, Position
from streamsrv.runtime.settings import ArchiveSettings
from streamsrv.runtime.threads import call_on
from streamsrv.runtime.tracks import FAULTS, Part, Piece, Track, join, look
from streamsrv.stores.base import StreamKey

MAX_WAITING_S = 10
"""Audio of one channel that may wait for the disk; more becomes silence in the file, and the session is told once."""
LABEL = "interview"
"""File in each folder that holds the interview's name."""
PIECE_S = 1
"""Audio that is written at once."""

Trouble: TypeAlias = Literal["gap", "full", "failed"]
Warn: TypeAlias = Callable[[str, str], None]
"""``(code, message)``, on the event loop."""

log = telemetry.logger("recorder")


class Recording:
    """One epoch of one stream.  All methods but ``work`` belong to the event loop."""

    def __init__(self, recorder: Recorder, tracks: list[Track], warn: Warn, label: Callable[[], None]) -> None:
        self._recorder = recorder
        self._label = label
        self._tracks = tracks
        self._warn = warn
        self._lock = threading.Lock()
        self._waiting: list[deque[Piece]] = [deque() for _ in tracks]
        self._held = [0] * len(tracks)
        """Samples waiting, per channel; bounded by ``MAX_WAITING_S``."""
        self._lost = [0] * len(tracks)
        """Samples that found no room since the last that did."""
        self._told: set[Trouble] = set()
        self._scheduled = False
        self._stopped = False
        self._dead = False
        """Nothing more is written; known to the thread first."""

    def take(self, channel: int, samples: bytes) -> None:
        """Take what the engine will hear, in order, int16; never waits."""
        if self._stopped:
            return
        count = len(samples) // 2
        with self._lock:
            if self._held[channel] + count > MAX_WAITING_S * RATE_HZ:
                self._lost[channel] += count
                lost = True
            else:
                self._waiting[channel].append(Piece(self._lost[channel], samples))
                self._held[channel] += count
                self._lost[channel], lost = 0, False
            due = not self._scheduled and self._held[channel] >= PIECE_S * RATE_HZ
            self._scheduled = self._scheduled or due
        if lost:
            self.trouble("gap")
        if due:
            self._recorder.submit(self.work)

    def close(self) -> None:
        """No more comes; what waits is written.  Safe to call twice."""
        if not self._stopped:
            self._stopped = True
            self._recorder.forget(self)
            self._recorder.submit(self._finish)

    def trouble(self, trouble: Trouble) -> None:
        """Tell the session, once of each kind."""
        if trouble not in self._told:
            self._told.add(trouble)
            log.warning("recording.trouble", reason=trouble)
            self._warn(*_TROUBLES[trouble])

    # --- in the recorder's thread -------------------------------------------------------------------------------

    def work(self) -> None:
        """Write what waits."""
        with self._lock:
            self._scheduled = False
        for channel, track in enumerate(self._tracks):
            with self._lock:
                pieces = tuple(self._waiting[channel])
                self._waiting[channel].clear()
            if pieces:
                self._write(track, _joined(pieces))
            with self._lock:
                self._held[channel] -= sum(len(piece.samples) // 2 for piece in pieces)

    def _write(self, track: Track, pieces: list[Piece]) -> None:
        if self._dead:
            return
        self._label()
        try:
            for piece in pieces:
                if not track.write(piece):
                    return self._give_up("full")
        except FAULTS as error:
            log.warning("recording.failed", error=error)
            self._give_up("failed")

    def _give_up(self, trouble: Trouble) -> None:
        self._dead = True
        self._recorder.on_loop(self.trouble, trouble)
        self._recorder.on_loop(self.close)

    def _finish(self) -> None:
        with self._lock:
            for channel, lost in enumerate(self._lost):
                if lost:
                    self._waiting[channel].append(Piece(lost, b""))
        self.work()
        for track in self._tracks:
            try:
                track.finish()
            except FAULTS as error:
                log.warning("recording.failed", error=error)


class Kept(NamedTuple):
    """What is recorded of one channel of a stream."""

    stream: str
    channel: int
    seconds: float
    """From the beginning of the stream to the end of the recording."""


class Recorder:
    """All recordings of a server.

    Args:
        data_dir: the server's data directory.
        settings: whether, and how long.
    """

    def __init__(self, data_dir: str | Path, settings: ArchiveSettings) -> None:
        self._root = Path(data_dir) / "recordings"
        self._settings = settings
        self._open: dict[Recording, StreamKey] = {}
        self._files = asyncio.Lock()  # one at a time: putting a long recording together takes a core for seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="record")  # starts with the first recording

    def folder(self, interview: str) -> Path:
        """Where the recordings of an interview are."""
        return self._root / hashlib.sha256(interview.encode()).hexdigest()[:32]

    def check(self, options: Options) -> None:
        """Whether these options may be served.

        Raises:
            Forbidden: a recording is wanted, and this server makes none.
        """
        if options.record and not self._settings.allow_recording:
            raise Forbidden("option 'record': this server does not record", hint="leave 'record' out")

    def begin(self, key: StreamKey, options: Options, begins: Position, warn: Warn) -> Recording | None:
        """Record an epoch from a position on; ``None`` when it is not to be."""
        if not options.record or not self._settings.allow_recording:
            return None
        self._loop = asyncio.get_running_loop()
        folder = self.folder(key.interview)
        most = self._settings.max_recording_s * RATE_HZ
        tracks = [
            Track(folder / f"{key.stream}-{key.epoch}-{channel}.flac", begins, most)
            for channel in range(options.tracks)
        ]
        recording = Recording(self, tracks, warn, partial(_label, folder, key.interview))
        self._open[recording] = key
        return recording

    def submit(self, work: Callable[[], None]) -> None:
        """Let the thread do this, after what it was given before."""
        self._thread.submit(work)

    def on_loop(self, call: Callable[..., None], *args: object) -> None:
        """Call on the event loop, from the thread."""
        call_on(self._loop, call, *args)

    def forget(self, recording: Recording) -> None:
        self._open.pop(recording, None)

    # --- what was recorded --------------------------------------------------------------------------------------

    async def kept(self, interview: str) -> tuple[Kept, ...]:
        """The recordings of an interview, by stream and channel; those that still run up to now."""
        await self.written()
        return await asyncio.to_thread(_kept, self.folder(interview))

    async def whole(self, interview: str, stream: str, channel: int) -> Path | None:
        """One file with all of a channel of a stream that has ended, made when it is first asked for.

        Raises:
            StoreUnavailable: it cannot be made at the moment.
        """
        await self.written()
        folder = self.folder(interview)
        async with self._files:
            try:
                return await asyncio.to_thread(_whole, folder, stream, channel)
            except FAULTS as error:
                log.warning("recording.unreadable", error=error)
                raise StoreUnavailable(
                    "the recording cannot be put together at the moment",
                    hint="make room on the disk",
                    retry_after_s=10.0,
                ) from error

    def running(self, stream: str) -> bool:
        """Whether a session of this server still records the stream."""
        return any(key.stream == stream for key in self._open.values())

    async def written(self) -> None:
        """What the thread was given is done."""
        await asyncio.get_running_loop().run_in_executor(self._thread, _nothing)

    async def delete(self, interview: str) -> None:
        """Delete all recordings of an interview; those that still run end first.

        Raises:
            OSError: something could not be deleted.
        """
        for recording in [one for one, key in self._open.items() if key.interview == interview]:
            recording.close()
        async with self._files:
            await asyncio.get_running_loop().run_in_executor(self._thread, _remove, self.folder(interview))

    async def interviews(self) -> tuple[str, ...]:
        """Of which interviews there are recordings here."""
        return await asyncio.to_thread(_labels, self._root)

    async def close(self) -> None:
        """Complete all files."""
        for recording in tuple(self._open):
            recording.close()
        await asyncio.to_thread(self._thread.shutdown)


_TROUBLES: dict[Trouble, tuple[str, str]] = {
    "gap": ("recording_gap", "the disk is too slow; the recording has silence where audio was lost"),
    "full": ("recording_full", "the recording has the longest length this server allows and ends here"),
    "failed": ("recording_failed", "the recording cannot be written and ends here; the transcript goes on"),
}


_NAME = re.compile(r"(?P<stream>[\w-]+)-(?P<epoch>\d+)-(?P<channel>\d+)\.flac")


def _parts(folder: Path) -> dict[tuple[str, int], list[Part]]:
    """What can be read, by stream and channel, each by epoch."""
    names = sorted(
        (found["stream"], int(found["channel"]), int(found["epoch"]), path)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (found := _NAME.fullmatch(path.name))
    )
    parts: dict[tuple[str, int], list[Part]] = {}
    for stream, channel, _, path in names:
        if (part := look(path)) is not None:
            parts.setdefault((stream, channel), []).append(part)
    return parts


def _kept(folder: Path) -> tuple[Kept, ...]:
    return tuple(
        Kept(stream, channel, round(max(part.ends for part in parts) / RATE_HZ, 3))
        for (stream, channel), parts in _parts(folder).items()
    )


def _whole(folder: Path, stream: str, channel: int) -> Path | None:
    parts = _parts(folder).get((stream, channel))
    if not parts:
        return None
    if len(parts) == 1 and parts[0].begins == 0:
        return parts[0].path
    path = folder / f"{stream}-whole.{channel}.flac"
    if not path.exists():
        join(parts, path)
    return path


def _nothing() -> None:
    return None


def _label(folder: Path, interview: str) -> None:
    """Write whose recordings these are, since the folder's name does not tell."""
    path = folder / LABEL
    with suppress(OSError):  # a disk that is full is told by the recording itself
        if not path.exists():
            for one in (folder.parent, folder):
                one.mkdir(mode=0o700, exist_ok=True)
            draft = path.with_suffix(".new")
            draft.touch(mode=0o600)
            draft.write_text(interview, "utf-8")
            draft.replace(path)


def _labels(root: Path) -> tuple[str, ...]:
    return tuple(path.read_text("utf-8") for path in sorted(root.glob(f"*/{LABEL}")))


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _joined(pieces: tuple[Piece, ...]) -> list[Piece]:
    """Pieces that follow each other without silence, as one."""
    found: list[tuple[int, list[bytes]]] = []
    for piece in pieces:
        if piece.silence or not found:
            found.append((piece.silence, []))
        found[-1][1].append(piece.samples)
    return [Piece(silence, b"".join(parts)) for silence, parts in found]
