"""Interviews go: when somebody deletes them, and when they are older than they may be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from streamsrv import telemetry
from streamsrv.errors import Stopped, StoreUnavailable
from streamsrv.runtime.fanout import Fanout
from streamsrv.runtime.recorder import Recorder
from streamsrv.runtime.spool import Spool
from streamsrv.runtime.streams import Streams
from streamsrv.stores.base import TranscriptStore

SWEEP_EVERY_S = 600.0
"""Pause between two looks for interviews that are too old."""
LOOK = 200
"""Interviews with recordings on this node that are looked for in the store by one sweep; the next looks at others."""
BITE = 10
"""Interviews deleted between two pauses."""
PAUSE_S = 1.0
"""Pause after each bite: live speech goes first."""
DAY_MS = 86_400_000

log = telemetry.logger("archive")


class Files(Protocol):
    """Uploads and their jobs, as far as they must go with their interview."""

    def holds(self, interview: str) -> bool:
        """Whether something is queued or running for this interview."""

    async def forget(self, interview: str) -> None:
        """Cancel what is queued or running for this interview, and delete its jobs and files."""

    async def sweep(self) -> None:
        """Delete files that belong to nobody any more."""


class Archive:
    """Deletes interviews with all that belongs to them.

    Args:
        files: uploads and jobs.
        retain_days: age at which completed interviews go; 0: never.
        utc_ms: the wall clock.
    """

    def __init__(
        self,
        store: TranscriptStore,
        streams: Streams,
        fanout: Fanout,
        recorder: Recorder,
        spool: Spool,
        files: Files,
        *,
        retain_days: int,
        utc_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._streams = streams
        self._fanout = fanout
        self._recorder = recorder
        self._spool = spool
        self._files = files
        self._retain_ms = retain_days * DAY_MS
        self._looked = 0
        self._utc_ms = utc_ms

    async def delete(self, interview: str) -> bool:
        """Delete an interview: its live streams and viewers end, then its files go, then what is stored.

        Whatever fails can be repeated.

        Returns:
            False when there was none.

        Raises:
            StoreUnavailable: it is not all gone.
        """
        with self._streams.doom(interview):
            return await self._delete(interview)

    async def _delete(self, interview: str) -> bool:
        await self._streams.stop(interview)
        try:
            await self._files.forget(interview)
            await self._recorder.delete(interview)
            await self._spool.forget(interview)
        except OSError as error:
            log.warning("archive.files_left", error=error, interview=interview)
            raise StoreUnavailable(
                "files of the interview cannot be deleted at the moment", hint="look at the data directory"
            ) from error
        found = await self._store.delete_interview(interview)
        if found:
            log.info("interview.deleted", interview=interview)
            self._fanout.shared.delete(interview)
            self._fanout.dismiss(interview, Stopped(f"interview '{interview}' was deleted"))
        return found

    async def run(self) -> None:
        """Sweep for as long as the server lives."""
        while True:
            gone = 0
            try:
                gone = await self.sweep() + await self.sweep_recordings()
                await self._files.sweep()
            except StoreUnavailable as error:
                log.warning("archive.waits", error=error)
            await asyncio.sleep(PAUSE_S if gone else SWEEP_EVERY_S)

    async def sweep(self) -> int:
        """Delete some of what is too old, and finish deletions that a crash interrupted; how many that were.

        Raises:
            StoreUnavailable: come back later.
        """
        before_ms = self._utc_ms() - self._retain_ms if self._retain_ms else 0
        names = await self._store.expired(before_ms, limit=BITE)
        return sum([await self._expire(name, before_ms) for name in names])

    async def sweep_recordings(self) -> int:
        """Delete recordings of interviews that another node deleted; of how many.

        Raises:
            StoreUnavailable: come back later.
        """
        names = await self._recorder.interviews()
        look = [names[(self._looked + number) % len(names)] for number in range(min(LOOK, len(names)))]
        self._looked += len(look)
        return sum([await self._forget(name) for name in look])

    async def _forget(self, interview: str) -> bool:
        if await self._store.interview(interview) is not None:
            return False
        with self._streams.doom(interview):
            if await self._store.interview(interview) is not None:
                return False
            try:
                await self._recorder.delete(interview)
            except OSError as error:
                log.warning("archive.files_left", error=error, interview=interview)
                return False
            log.info("recordings.deleted", interview=interview)
            return True

    async def _expire(self, interview: str, before_ms: int) -> bool:
        """Delete it, unless it came to life again since we looked, or a file waits to be heard for it."""
        with self._streams.doom(interview):
            if self._files.holds(interview):
                return False
            found = await self._store.interview(interview)
            if found is not None and (found.status != "completed" or (found.ended_ms or 0) >= before_ms):
                return False
            return await self._delete(interview)
