"""Exact words through the live socket, the scheduler and a Whisper of tones: many at once, none ever hears another."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import msgspec
import pytest

pytest.importorskip("faster_whisper", reason="the extra 'whisper' is not installed")

from benchmarks import spoken
from streamsrv.engines.base import Hypothesis, Window
from streamsrv.engines.whisper import WhisperEngine, WhisperSettings
from streamsrv.errors import EngineError
from tests.models import tone
from tests.support.promises import final_texts
from tests.support.server import running

BYTES_PER_S = 2 * tone.RATE_HZ
PACE = 3.0
"""Seconds of audio sent per second."""
LEAD_S = 0.3
"""Silence each script begins with."""

pytestmark = pytest.mark.slow


class Voice(msgspec.Struct, frozen=True):
    """What one session sends, and what it must be told."""

    messages: list[bytes]
    after_s: float
    words: list[str]


class CountedEngine(WhisperEngine):
    """Remembers how many windows it heard together at most."""

    together = 0

    def hear(self, windows: Sequence[Window]) -> Sequence[Hypothesis | EngineError]:
        self.together = max(self.together, len(windows))
        time.sleep(0.05)  # others come meanwhile: on a fast machine everybody would be heard alone
        return super().hear(windows)


def voice(number: int, chance: random.Random) -> Voice:
    """Words of its own, from a random place on, in messages of random size; every fourth begins inside a word."""
    script = spoken.turns(number, [(6.0, 0.75)])
    # The tone of half a word is still that word; of less, Whisper's slots of half a second would hear the next one.
    missing_s = chance.uniform(0.05, 0.2) if number % 4 == 0 else -chance.uniform(0.0, LEAD_S)
    audio = script.samples[2 * round((LEAD_S + missing_s) * tone.RATE_HZ) :]
    messages = []
    while audio:
        size = chance.choice((2, 3, 641, chance.randint(1, 3_200), 3_200))
        messages.append(audio[:size])
        audio = audio[size:]
    return Voice(messages, chance.uniform(0.0, 0.5), [word.text for word in script.truth])


async def speak(socket: aiohttp.ClientWebSocketResponse, voice: Voice) -> None:
    await asyncio.sleep(voice.after_s)
    due = asyncio.get_running_loop().time()
    for message in voice.messages:
        await socket.send_bytes(message)
        due += len(message) / BYTES_PER_S / PACE
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
    await socket.send_json({"type": "finish"})


async def listen(socket: aiohttp.ClientWebSocketResponse) -> list[str]:
    """The words of its finals."""
    return " ".join(await final_texts(socket)).split()


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tone.make(tmp_path_factory.mktemp("models") / "tone")


@pytest.mark.parametrize(
    ("sessions", "compute_type"), [(1, "int8"), (2, "float32"), (8, "int8"), (8, "float32"), (32, "int8")]
)
async def test_everybody_is_told_his_own_words_exactly(
    tmp_path: Path, tones: Path, sessions: int, compute_type: str
) -> None:
    chance = random.Random(sessions)
    voices = [voice(number, chance) for number in range(sessions)]
    engine = CountedEngine(
        WhisperSettings(model=str(tones), device="cpu", compute_type=compute_type, cpu_threads=1, batch=32)
    )
    async with running(tmp_path, engine=engine) as here, aiohttp.ClientSession() as client:
        # All are let in before anybody speaks: who comes later may be refused, which is not the subject.
        sockets = [await client.ws_connect(here.stream(f"tones-{n}")) for n in range(sessions)]
        speakers = asyncio.gather(*map(speak, sockets, voices))
        heard = await asyncio.gather(*map(listen, sockets))
        await speakers
    assert heard == [voice.words for voice in voices]
    assert sessions < 8 or engine.together > 1, "or nobody could have heard another"
