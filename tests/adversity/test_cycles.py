"""Connections that come, speak, break, and come back or not: nothing of them stays."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks import durability
from streamsrv.runtime.settings import SessionSettings
from tests.adversity.arena import UTTERANCE, Talker, arena, eventually
from tests.support.speech import silence, voice

CYCLES = 80


def cut(talker: Talker) -> None:
    talker.ws.get_extra_info("socket").shutdown(2)


@pytest.mark.slow
async def test_cycles_of_connect_and_cut_leave_nothing(tmp_path: Path) -> None:
    """Tasks, files and memory are looked at by the arena."""
    chance = random.Random(11)
    async with arena(tmp_path, session=SessionSettings(resume_window_s=0.3), bystander=False) as ring:
        said = 0
        for number in range(CYCLES):
            talker = await ring.join(f"i-{number % 7}")
            token = talker.seen[0]["resume_token"]
            match chance.randrange(4):
                case 0:  # at once
                    cut(talker)
                case 1:  # in silence
                    await talker.send(silence(0.3))
                    cut(talker)
                case 2:  # in mid-utterance, for good
                    await talker.send(voice(0.6))
                    await talker.until("speech_started")
                    cut(talker)
                    said += 1
                case _:  # in mid-utterance, and back
                    await talker.send(voice(0.6))
                    await talker.until("speech_started")
                    cut(talker)
                    again = await ring.join(f"i-{number % 7}", f"resume={token}")
                    await again.send(UTTERANCE[again.seen[0]["resume_at"] * 2 :])
                    assert await again.finish() == 1000
                    said += 1
        held = ring.server.streams._drivers
        await eventually(lambda: not held, lambda: [one.machine.state for one in held.values()])
        finals = [one for interview in range(7) for one in await ring.server.store.finals(f"i-{interview}")]
        assert len(finals) == said
        assert await ring.server.store.left_streams() == ()


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_thousands_of_cycles_leave_neither_files_nor_memory() -> None:
    """The server is a process of its own, so that its memory is its own."""
    figures, broken = await durability.cycles(durability.Plan(cycles=durability.MANY_CYCLES))
    assert broken == [], figures
