"""PocketSphinx: the engine that is always there.  US English, on any CPU, without a download.

Each open segment has a worker process of its own (``_sphinx``); the session's voice travels from segment to segment.
The text is the decoder's first pass, so the final says what the last partial said.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from streamsrv.engines._sphinx import wire
from streamsrv.engines._sphinx.handle import Worker
from streamsrv.engines._sphinx.keeper import INSTALL, Keeper
from streamsrv.engines._sphinx.lease import Lease
from streamsrv.engines._sphinx.slots import Slots
from streamsrv.engines._sphinx.voice import Voice
from streamsrv.engines.base import Abilities, About, Hypothesis
from streamsrv.errors import EngineError, EngineFailed, SetupError, UnsupportedLanguage
from streamsrv.facts import RATE_HZ, Word

WORKERS_PER_CORE: Final = 5
"""Speakers one core keeps up with: one takes 0.1 to 0.2 of it while speaking."""
SEGMENT_SAMPLES: Final = 60 * RATE_HZ
"""Longest segment; more raises ``EngineFailed``.  Sessions cut at 20 s."""
PATIENCE: Final = 30
"""A worker of files runs when nobody else wants to, so it may take so many times longer."""
NICENESS: Final = 19
"""Workers of files give way to everything."""
FIRST_WORKER_S: Final = 20.0
"""Seconds the first worker may take; then the engine does not start."""
LANGUAGE: Final = "en-US"
NOTE: Final = (
    "US English only; between one word in five and two in three are wrong, 45 in 100 over 14 recordings of real speech"
)


class SphinxSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of the machine PocketSphinx may take."""

    workers: Annotated[
        int | None,
        Meta(ge=1, le=512, description="Worker processes at most, about 30 MB each; unset: 5 per core."),
    ] = None
    waiting: Annotated[
        int, Meta(ge=1, le=100_000, description="Segments that may wait for a worker; one more is told to retry.")
    ] = 1_000
    idle_s: Annotated[
        float, Meta(ge=0.1, le=86_400, description="Seconds after which a worker nobody needs is retired.")
    ] = 30.0
    deadline_s: Annotated[
        float, Meta(ge=0.1, le=600, description="Seconds a worker may take for any answer before it is killed.")
    ] = 2.0
    deadline_ratio: Annotated[
        float, Meta(ge=0.1, le=100, description="Seconds it may take more for each second of audio it was given.")
    ] = 3.0


class SphinxEngine:
    """See ``engines.base.LiveEngine``."""

    def __init__(self, settings: SphinxSettings | None = None) -> None:
        self._settings = settings or SphinxSettings()
        self._most = self._settings.workers or WORKERS_PER_CORE * len(os.sched_getaffinity(0))
        self._keeper = Keeper(on_loss=self._lost, on_return=self._returned)
        self._slots = Slots(
            fork=self._keeper.fork,
            most=self._most,
            waiting_most=self._settings.waiting,
            idle_s=self._settings.idle_s,
            hopeless=lambda: self._keeper.hopeless,
        )
        # Files have workers of their own: a process that once gave way cannot be hurried again.
        self._slow = Slots(
            fork=self._fork_slow,
            most=len(os.sched_getaffinity(0)),
            waiting_most=self._settings.waiting,
            idle_s=self._settings.idle_s,
            hopeless=lambda: self._keeper.hopeless,
        )

    @property
    def abilities(self) -> Abilities:
        return Abilities(live=True, languages=("en-US", "en"), agreement=8, partial_every_s=0.1)

    @property
    def about(self) -> About:
        return About(name="sphinx", model="en-us (PocketSphinx 5.1.1)", device=f"cpu, {self._most} workers", note=NOTE)

    @property
    def healthy(self) -> bool:
        return self._keeper.healthy

    @property
    def workers(self) -> tuple[int, ...]:
        """Process ids of the workers that live."""
        return tuple(worker.pid for worker in (*self._slots.workers, *self._slow.workers))

    @property
    def zygote(self) -> int | None:
        """Process id of the zygote, while there is one."""
        return self._keeper.pid

    @property
    def slots(self) -> Slots:
        """The workers, for listeners."""
        return self._slots

    @property
    def slow_slots(self) -> Slots:
        """The workers that hear files."""
        return self._slow

    @property
    def settings(self) -> SphinxSettings:
        """As given."""
        return self._settings

    async def start(self) -> None:
        if not sys.platform.startswith("linux"):
            raise SetupError("the engine 'sphinx' watches its processes in a way only Linux has", hint="use Linux")
        if find_spec("pocketsphinx") is None:
            raise SetupError("the engine 'sphinx' needs the package pocketsphinx", hint=INSTALL)
        await self._keeper.start()
        try:
            async with asyncio.timeout(FIRST_WORKER_S):
                await self._try()
        except (EngineError, TimeoutError) as failure:
            await self.close()
            raise SetupError(
                "PocketSphinx's first worker does not answer",
                hint="see whether this machine may start more processes and has 100 MB of free memory",
            ) from failure

    def listen(self, *, language: str | None, background: bool = False) -> SphinxListener:
        if language is not None and language.replace("_", "-").lower().split("-")[0] != "en":
            raise UnsupportedLanguage(
                f"the engine 'sphinx' knows US English (en-US) only, not {language[:35]!r}",
                hint="leave 'language' out, send language=en-US, or choose another engine",
            )
        return SphinxListener(self, background=background)

    async def close(self) -> None:
        self._slots.close()
        self._slow.close()
        await self._keeper.close()

    async def _try(self) -> None:
        """Have one worker answer."""
        lease = await self._slots.lease(final=True)
        try:
            await lease.ask(wire.Ask(), within_s=FIRST_WORKER_S)
        finally:
            lease.end()

    async def _fork_slow(self) -> Worker:
        worker = await self._keeper.fork()
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, worker.pid, NICENESS)
        return worker

    def _lost(self) -> None:
        """The zygote died; its workers die with it, each noticed by itself."""
        if self._keeper.hopeless:
            self._slots.refuse_all()
            self._slow.refuse_all()

    def _returned(self) -> None:
        self._slots.warm()
        self._slots.serve()
        self._slow.serve()


class _Segment:
    """What a listener knows of its open segment."""

    def __init__(self, voice: Voice) -> None:
        self.begin: Voice | None = voice
        """Sent with the first question."""
        self.samples = 0
        self.lease: Lease | None = None
        self.call: asyncio.Task[Hypothesis] | None = None
        self.abandoned = False

    def end(self) -> None:
        if self.lease is not None:
            self.lease.end()
            self.lease = None


class SphinxListener:
    """See ``engines.base.Listener``.  Holds a worker from a segment's first ``hear`` to its end."""

    def __init__(self, engine: SphinxEngine, *, background: bool) -> None:
        self._engine = engine
        self._slots = engine.slow_slots if background else engine.slots
        self._patience = PATIENCE if background else 1
        self._voice = Voice()
        self._segment: _Segment | None = None
        self._closed = False

    async def hear(self, samples: bytes, *, final: bool) -> Hypothesis:
        if self._closed:
            raise EngineFailed("the listener is closed")
        segment = self._segment or _Segment(self._voice)
        if segment.call is not None:
            raise EngineFailed("one call at a time")
        self._segment = segment
        segment.call = asyncio.get_running_loop().create_task(self._hear(segment, samples, final))
        try:
            return await segment.call
        except asyncio.CancelledError:
            if segment.abandoned and not _cancelled():
                return Hypothesis(words=(), language=LANGUAGE)
            self._drop(segment)
            raise
        except BaseException:
            self._drop(segment)
            raise
        finally:
            segment.call = None

    def abandon(self) -> None:
        segment, self._segment = self._segment, None
        if segment is None:
            return
        segment.abandoned = True
        if segment.call is not None:
            segment.call.cancel()
        segment.end()

    def close(self) -> None:
        self._closed = True
        self.abandon()

    # --- inside ----------------------------------------------------------------------------------------------

    def _drop(self, segment: _Segment) -> None:
        segment.end()
        if self._segment is segment:
            self._segment = None

    async def _hear(self, segment: _Segment, samples: bytes, final: bool) -> Hypothesis:
        segment.samples += len(samples) // 2
        if segment.samples > SEGMENT_SAMPLES or len(samples) % 2:
            raise EngineFailed(f"a segment is whole samples, {SEGMENT_SAMPLES // RATE_HZ} s of them at most")
        if segment.lease is None:
            lease = await self._slots.lease(final=final)
            if segment.abandoned:
                lease.end()
                raise asyncio.CancelledError
            segment.lease = lease
        told = await self._tell(segment, segment.lease, samples, final)
        if final:
            self._voice = told.voice or self._voice
            self._drop(segment)
        return _hypothesis(told)

    async def _tell(self, segment: _Segment, lease: Lease, samples: bytes, final: bool) -> wire.Told:
        """Hand the samples over, in pieces; the last piece's answer."""
        size = 2 * wire.PIECE_SAMPLES
        starts = range(0, max(len(samples), 1), size)
        told = wire.Told()
        for start in starts:
            piece, last = samples[start : start + size], start == starts[-1]
            ask = wire.Ask(begin=segment.begin, samples=piece, final=final and last, tell=last)
            segment.begin = None
            told = await lease.ask(ask, within_s=self._deadline(len(piece) // 2))
            if told.failed:
                raise EngineFailed(f"the decoder refused this segment ({told.failed})")
        return told

    def _deadline(self, samples: int) -> float:
        settings = self._engine.settings
        return self._patience * (settings.deadline_s + settings.deadline_ratio * samples / RATE_HZ)


def _hypothesis(told: wire.Told) -> Hypothesis:
    words = tuple(
        Word(text=word.text, start=word.start, stop=word.stop, confidence=word.confidence, estimated=word.estimated)
        for word in told.words
    )
    return Hypothesis(words=words, language=LANGUAGE)


def _cancelled() -> bool:
    """Whether the caller itself is being cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
