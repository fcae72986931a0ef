"""PocketSphinx hears files with workers of their own, which give way to those of live speech."""

from __future__ import annotations

import asyncio
import os

import pytest

from streamsrv.engines.sphinx import NICENESS, SphinxEngine, SphinxSettings
from tests.support.speech import voice

pytestmark = pytest.mark.slow


async def test_files_take_no_worker_from_live_speech() -> None:
    engine = SphinxEngine(SphinxSettings(workers=1))
    await engine.start()
    try:
        live = engine.listen(language=None)
        await live.hear(voice(0.5), final=False)
        before = set(engine.workers)
        files = [engine.listen(language=None, background=True) for _ in range(4)]
        async with asyncio.timeout(40):
            heard = await asyncio.gather(*(one.hear(voice(1.0), final=True) for one in files))
        assert len(heard) == 4, "the only live worker was busy all the time"
        slow = set(engine.workers) - before
        assert slow
        assert len(slow) <= len(os.sched_getaffinity(0))
        assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in slow} == {NICENESS}
        assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in before} == {os.getpriority(os.PRIO_PROCESS, 0)}
        await live.hear(voice(0.5), final=True)
        for one in files:
            one.close()
    finally:
        await engine.close()
