"""Live WebM of a real browser's MediaRecorder: heard while it is recorded, and resumed from its first byte."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from benchmarks.media_recorder import SLICE_MS, Talk, Told, microphone, text
from streamsrv.engines.sphinx import SphinxEngine, SphinxSettings
from tests.services.browser import seat
from tests.support.server import running

pytestmark = [pytest.mark.slow, pytest.mark.speech, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
ONE, OTHER = "austen-0870", "austen-0920"


def check_times(told: Told, length_s: float) -> None:
    """Everything lies within the recording, in order, and nothing in two segments."""
    audio_ms = told.all("closed")[-1]["audio_ms"]
    assert abs(audio_ms - 1000 * length_s) < 2_000
    finals = in_order(told)
    assert [final["segment"] for final in finals] == list(range(len(finals)))
    for final in finals:
        assert 0 <= final["start_ms"] < final["stop_ms"] <= audio_ms
        assert all(final["start_ms"] <= word["start_ms"] <= word["stop_ms"] for word in final["words"])
    assert all(before["stop_ms"] <= after["start_ms"] for before, after in itertools.pairwise(finals))


async def test_words_appear_while_a_browser_records_webm(tmp_path: Path) -> None:
    spoken, length_s = microphone(tmp_path / "voice.wav", ONE)
    engine = SphinxEngine(SphinxSettings(workers=1))
    async with running(tmp_path / "data", engine=engine) as server, seat(server.http, microphone=spoken) as one:
        talk = Talk(one.page, "webm")
        await talk.record(length_s)
        told = await talk.told()
        stored = [kept.final.text for kept in await server.store.finals("webm")]

    assert told.closes == [1000]
    assert told.one("closed")["cause"] == "finish"
    assert told.all("warning") == []
    options = told.one("configured")["options"]
    assert (options["encoding"], options["sample_rate"]) == ("container", 48_000)
    assert told.pieces > 1000 * length_s / SLICE_MS / 2, "pieces came all along"
    assert told.early >= 3, "words appear while it is recorded"
    assert told.first_partial_ms > 0
    sys.stdout.write(f"first piece -> first partial: {told.first_partial_ms:.0f} ms\n")
    assert len(set(text(ONE)) & set(told.words)) >= 8, told.words
    assert [final["text"] for final in told.all("final")] == stored
    check_times(told, length_s)


class House:
    """A server process that can be started again where it was."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0

    async def start(self) -> None:
        serve = ("serve", "--port", str(self.port), "--engine", "sphinx", "--data-dir", str(self._folder))
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "streamsrv", *serve), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            async for line in self._process.stdout:
                if (told := json.loads(line)).get("url"):
                    self.port = urlsplit(told["url"]).port or 0
                    return
        raise AssertionError("the server did not come up")

    async def stop(self, how: signal.Signals) -> int:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(how)
        await asyncio.wait_for(self._process.communicate(), 60)
        return self._process.returncode or 0

    async def transcript(self, interview: str) -> list[dict[str, Any]]:
        """Stored finals of an interview."""
        url = f"http://127.0.0.1:{self.port}/transcription/{interview}"
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            answer: dict[str, Any] = await response.json()
        assert [stream["status"] for stream in answer["streams"]] == ["ended"]
        segments: list[dict[str, Any]] = answer["segments"]
        return segments


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    served = House(folder)
    await served.start()
    try:
        yield served
    finally:
        await served.stop(signal.SIGKILL)


@pytest.mark.parametrize(("how", "code", "words"), [(signal.SIGTERM, 1012, ["draining"]), (signal.SIGKILL, 1006, [])])
async def test_a_restart_in_the_middle_is_mended_from_the_first_byte(
    tmp_path: Path, how: signal.Signals, code: int, words: list[str]
) -> None:
    spoken, length_s = microphone(tmp_path / "voice.wav", OTHER, ONE)
    async with house(tmp_path / "data") as served, seat(f"http://127.0.0.1:{served.port}", microphone=spoken) as one:
        talk, whole = Talk(one.page, "cut"), Talk(one.page, "whole")
        await talk.record(length_s)
        await talk.seen("final", 0)
        await talk.seen("partial", 1)  # inside the second utterance
        status = await served.stop(how)
        await served.start()
        told = await talk.told()
        await whole.replay(talk)  # the same bytes, undisturbed
        wanted = await whole.told()
        stored = await served.transcript("cut")

    assert status == (0 if how is signal.SIGTERM else -how)
    assert told.closes == [code, 1000]
    assert [(error["code"], error["retryable"]) for error in told.all("error")] == [(word, True) for word in words]
    check_resumed(told)
    check_times(told, length_s)
    assert [segment["text"] for segment in stored] == [final["text"] for final in in_order(told)]
    assert told.one("closed")["audio_ms"] == wanted.one("closed")["audio_ms"]
    kept, plain = shape(told), shape(wanted)
    parted = [final["cause"] for final in in_order(told)].count("flush")
    assert parted <= (how is signal.SIGTERM)
    if not parted:  # the words of the second segment are those of an engine that begins with this voice
        assert kept == plain, "as if nothing had happened"
    else:  # what was surely said before the server left is a segment of its own
        assert (kept[0], kept[1][0], kept[-1][1]) == (plain[0], plain[1][0], plain[-1][1])
    assert in_order(told)[0]["text"] == in_order(wanted)[0]["text"]
    assert len(set(text(ONE)) & set(told.words)) >= 8, told.words


def check_resumed(told: Told) -> None:
    """The rule: the second connection belongs to the same stream and wants the recording from its first byte."""
    fresh, resumed = told.all("ready")
    assert (fresh["epoch"], resumed["epoch"]) == (1, 2)
    assert fresh["stream"] == resumed["stream"]
    assert resumed["options"]["encoding"] == "container"
    assert resumed["resume_at"] > 0, "what is stored is not heard again"
    assert told.all("warning") == []


def in_order(told: Told) -> list[dict[str, Any]]:
    return sorted(told.all("final"), key=lambda final: int(final["segment"]))


def shape(told: Told) -> list[tuple[int, int]]:
    return [(final["start_ms"], final["stop_ms"]) for final in in_order(told)]
