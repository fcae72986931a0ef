"""Two hours of audio: heard in memory that does not grow with them."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import soundfile

from tests.adversity.arena import resident
from tests.server.test_upload import Desk, desk
from tests.support.speech import silence, voice

RATE = 8_000
HOURS = 2
MINUTE = silence(40.0, rate=RATE) + voice(3.0, rate=RATE) + silence(17.0, rate=RATE)
MOST_GROWTH = 48 * 2**20
"""Resident bytes the server may gain meanwhile; the audio has 230 MB at the rate engines hear."""


def make(path: Path) -> None:
    minute = np.frombuffer(MINUTE, "<i2")
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16", format="FLAC") as file:
        for _ in range(HOURS * 60):
            file.write(minute)


async def post(here: Desk, path: Path) -> str:
    form = aiohttp.FormData()
    form.add_field("interviewId", "talk")
    with path.open("rb") as file:
        form.add_field("file", file, filename="long.flac")
        async with here.http.post(f"{here.server.http}/transcription/upload?wait=0", data=form) as answer:
            assert answer.status == 202, await answer.text()
            return answer.headers["Location"]


@pytest.mark.slow
async def test_two_hours_are_heard_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    make(path)
    async with desk(tmp_path / "data") as here:
        await here.send(_short())
        before = resident()
        most = 0
        location = await post(here, path)
        while (body := (await here.ask(location))[1])["state"] in ("queued", "running"):
            most = max(most, resident())
        assert (body["state"], body["audio_ms"]) == ("done", HOURS * 3_600_000), body
        assert most - before < MOST_GROWTH
        finals = await here.server.store.finals("talk")
        assert len(finals) == 1 + HOURS * 60
        starts = [kept.final.start for kept in finals][1:]
        assert all(abs(later - earlier - 60 * 16_000) <= 960 for earlier, later in pairwise(starts))


def _short() -> bytes:
    held = io.BytesIO()
    soundfile.write(held, np.frombuffer(MINUTE, "<i2")[RATE * 35 : RATE * 45], RATE, format="FLAC")
    return held.getvalue()
