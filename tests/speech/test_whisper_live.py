"""Human digits through the live socket, the scheduler and a small Whisper: several speakers, each his own words."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import msgspec
import pytest
import soundfile as sf

from streamsrv.runtime.scheduler import Scheduler
from streamsrv.server.health import ENGINES
from tests.models import costly
from tests.support.promises import final_texts
from tests.support.server import running
from tests.support.speech import silence

MODEL = Path(__file__).parents[1] / "models" / "digits"
FRAME = 6_400
SPEAKERS = 4

pytestmark = [pytest.mark.speech, pytest.mark.slow]


class Sample(msgspec.Struct, frozen=True):
    file: str
    words: list[str]


async def speak(
    client: aiohttp.ClientSession, url: str, samples: list[Sample], *, pause_s: float = 0.02
) -> tuple[str, str]:
    """What was said and what was heard; faster than life, so partials are few, or with 0.2 s at the pace of speech."""
    audio = silence(0.6)
    for sample in samples:
        audio += sf.read(MODEL / "samples" / sample.file, dtype="int16")[0].tobytes() + silence(1.0)
    async with client.ws_connect(url) as socket:
        for at in range(0, len(audio), FRAME):
            await socket.send_bytes(audio[at : at + FRAME])
            await asyncio.sleep(pause_s)
        await socket.send_json({"type": "finish"})
        heard = await final_texts(socket)
    return " ".join(word for sample in samples for word in sample.words), " ".join(heard)


@pytest.mark.parametrize("cost", ["small", "tiny.en's"])
async def test_each_speaker_gets_the_digits_he_said(tmp_path: Path, cost: str) -> None:
    pytest.importorskip("faster_whisper")
    from streamsrv.engines.whisper import WhisperEngine, WhisperSettings

    model = MODEL if cost == "small" else costly.make(tmp_path / "model")
    index = msgspec.json.decode((MODEL / "samples" / "index.json").read_bytes(), type=list[Sample])
    samples = [sample for sample in index if (MODEL / "samples" / sample.file).exists()]
    async with running(tmp_path / "data", engine=WhisperEngine(WhisperSettings(model=str(model)))) as here:
        async with aiohttp.ClientSession() as client:
            said = await asyncio.gather(
                *(speak(client, here.stream(f"i-{n}"), (samples[n:] + samples[:n])[:3]) for n in range(SPEAKERS))
            )
        scheduler = here.app[ENGINES].default
        assert isinstance(scheduler, Scheduler)
        assert scheduler.waiting == 0
    for truth, heard in said:
        assert heard == truth


async def test_finals_of_one_who_speaks_alone_come_of_his_partials(tmp_path: Path) -> None:
    pytest.importorskip("faster_whisper")
    from streamsrv.engines.whisper import WhisperEngine, WhisperSettings

    index = msgspec.json.decode((MODEL / "samples" / "index.json").read_bytes(), type=list[Sample])
    async with running(tmp_path, engine=WhisperEngine(WhisperSettings(model=str(MODEL)))) as here:
        async with aiohttp.ClientSession() as client:
            truth, heard = await speak(client, here.stream("i-1"), index[:4], pause_s=0.2)
        asked = here.numbers.registry.get_sample_value("streamsrv_window_seconds_count", {"rank": "final"})
    assert heard == truth
    assert (asked or 0) <= 2, "of four or more"
