"""Somebody who reads a sink while the run lasts: the project's own example, killed at any instant (row 58)."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from tests.adversity.runs.ledger import Handed
from tests.services.servers import MORTAL

ROOT = Path(__file__).parents[3]
PROGRAM = ROOT / "examples" / "analysis_consumer.py"
AGAIN_S = 1.0
"""One that ended by itself, because the sink is away, is started again after this."""
CAUGHT_UP_WITHIN_S = 12.0
LOOKS_EVERY_S = 0.05


class Reader:
    """One consumer, over all its lives.

    Args:
        folder: for its inbox and its log.
        words: how it is told what to read; ``{group}`` stands for its group.
    """

    def __init__(self, folder: Path, words: Sequence[str]) -> None:
        self.lives = 0
        self._inbox = folder / "inbox.db"
        self._log = folder / "consumer.log"
        self._words = words
        self._group = 0
        self._process: asyncio.subprocess.Process | None = None
        self._living: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Keep one alive from now on."""
        self._living = asyncio.create_task(self._live())

    async def close(self) -> None:
        if self._living is not None:
            self._living.cancel()
            await asyncio.gather(self._living, return_exceptions=True)

    def kill(self) -> None:
        """SIGKILL, wherever it is; another one goes on, with what the sink knows of it and its inbox."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def rewind(self) -> None:
        """SIGKILL, and the next one belongs to a new group: it is given everything again, from the beginning."""
        self._group += 1
        self.kill()

    async def _live(self) -> None:
        while True:
            words = [word.format(group=f"group-{self._group}") for word in self._words]
            with self._log.open("ab") as out:
                self._process = process = await asyncio.create_subprocess_exec(
                    *MORTAL,
                    sys.executable,
                    str(PROGRAM),
                    "--inbox",
                    str(self._inbox),
                    *words,
                    stdout=out,
                    stderr=out,
                    cwd=ROOT,
                )
            self.lives += 1
            try:
                if await process.wait() >= 0:
                    await asyncio.sleep(AGAIN_S)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    async def consumed(self, wanted: int) -> list[Handed]:
        """What it has when it has so many finals, or never will."""
        loop = asyncio.get_running_loop()
        end = loop.time() + CAUGHT_UP_WITHIN_S
        while len(found := await asyncio.to_thread(self._read)) < wanted and loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(LOOKS_EVERY_S)
        return found

    def _read(self) -> list[Handed]:
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(self._inbox)) as db:
            rows = db.execute("SELECT stream, channel, segment, epoch, interview, text FROM finals").fetchall()
            names = ("stream", "channel", "segment", "epoch", "interview", "text")
            return [Handed(sink="inbox", key="", kind="final", **dict(zip(names, row, strict=True))) for row in rows]
        return []  # not made yet
