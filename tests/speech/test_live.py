"""Human speech through the real server and the real embedded engine, over a real socket: the words are right."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
import soundfile

from streamsrv.client import Closed, Final, Options, Partial, Transcription
from streamsrv.engines.sphinx import SphinxEngine, SphinxSettings
from tests.engines.hearing import word_errors
from tests.support.server import running

SPEECH = Path(__file__).parents[1] / "data" / "speech"


async def say(url: str, recording: Path, interview: str, *, pace: float) -> tuple[list[Final], list[Partial]]:
    """Stream a recording at ``pace`` times real time; what came back."""
    audio, rate = soundfile.read(recording, dtype="int16")
    finals: list[Final] = []
    partials: list[Partial] = []
    async with Transcription(url, interview, Options(sample_rate=rate)) as stream:

        async def listen() -> None:
            async for event in stream.events():
                if isinstance(event, Final):
                    finals.append(event)
                elif isinstance(event, Partial):
                    partials.append(event)
                elif isinstance(event, Closed):
                    assert event.cause == "finish"

        async def speak() -> None:
            for at in range(0, len(audio), rate // 10):
                await stream.send(audio[at : at + rate // 10].tobytes())
                await asyncio.sleep(0.1 / pace)
            await stream.finish()

        await asyncio.gather(listen(), speak())
    return finals, partials


@pytest.mark.speech
async def test_a_person_reading_is_understood_while_she_speaks(tmp_path: Path) -> None:
    recordings = sorted(SPEECH.glob("austen-*.flac"))
    assert recordings
    engine = SphinxEngine(SphinxSettings(workers=2))
    wanted: list[str] = []
    heard: list[str] = []
    async with running(tmp_path, engine=engine) as server:
        for recording in recordings:
            finals, partials = await say(f"ws://127.0.0.1:{server.port}", recording, recording.stem, pace=2.0)
            wanted += recording.with_suffix(".txt").read_text("utf-8").split()
            heard += " ".join(final.text for final in finals).split()
            assert partials, "words appear while she speaks"
            check_promises(finals, partials)
            stored = await server.store.finals(recording.stem)
            assert [kept.final.text for kept in stored] == [final.text for final in finals]
    assert word_errors(wanted, heard) <= 0.35, heard


def check_promises(finals: list[Final], partials: list[Partial]) -> None:
    final_of = {final.segment: final.text for final in finals}
    for partial in partials:
        assert final_of[partial.segment].startswith(partial.text[: partial.stable_chars])
    for final in finals:
        assert all(final.start_ms <= word.start_ms <= word.stop_ms <= final.stop_ms + 30 for word in final.words)
        assert all(before.start_ms <= after.start_ms for before, after in itertools.pairwise(final.words))
        assert all(0.0 <= word.confidence <= 1.0 for word in final.words)
