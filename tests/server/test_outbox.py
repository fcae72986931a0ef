"""The outbox in a server: words spoken reach the sinks, parked events are listed and tried again over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from streamsrv.runtime.handoff import patience
from streamsrv.sinks import events
from streamsrv.sinks.base import Outcome, Record, failed
from tests.support.memory import MemoryStore
from tests.support.server import Running, running
from tests.support.sinks import ScriptedSink
from tests.support.watching import SENTENCE, until


async def speak(server: Running, interview: str = "t-1", sentences: int = 3) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(server.stream(interview, "speaker=anna")) as ws:
        for _ in range(sentences):
            await ws.send_bytes(SENTENCE)
        await ws.send_str('{"type":"finish"}')
        async for _ in ws:
            pass


async def ask(server: Running, method: str, path: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.request(method, server.http + path) as answer:
        return answer.status, await answer.json()


async def test_what_is_said_reaches_the_sinks_and_so_does_its_deletion(tmp_path: Path) -> None:
    one, two = ScriptedSink("kafka"), ScriptedSink("webhook")
    async with running(tmp_path, sinks=[one, two]) as server:
        await speak(server)
        for sink in (one, two):
            await until(lambda sink=sink: len(sink.got) == 4)  # type: ignore[misc]
            *finals, done = sink.events("t-1")
            assert [one.segment for one in finals if isinstance(one, events.TranscriptFinal)] == [0, 1, 2]
            assert {one.speaker for one in finals if isinstance(one, events.TranscriptFinal)} == {"anna"}
            assert isinstance(done, events.TranscriptCompleted)
            assert done.streams[0].finals == 3
        async with aiohttp.ClientSession() as session:
            await session.delete(f"{server.http}/transcription/t-1")
        await until(lambda: len(one.got) == len(two.got) == 5)
        assert isinstance(two.events()[-1], events.TranscriptDeleted)


async def test_a_sink_that_is_away_slows_nobody_and_the_rest_is_pending(tmp_path: Path) -> None:
    away = ScriptedSink("kafka")
    away.always = lambda batch: failed("unavailable", "away")
    async with running(tmp_path, sinks=[away]) as server:
        await speak(server)
    later = ScriptedSink("kafka")
    async with running(tmp_path, sinks=[later]):
        await until(lambda: len(later.got) == 4)
    assert later.segments("t-1") == [0, 1, 2]


async def test_parked_events_are_listed_in_pages_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "FIRST_S", 0.01)
    sink = ScriptedSink("kafka")

    def refuse_finals(batch: Sequence[Record]) -> Outcome:
        if any(record.kind == "transcript.final" for record in batch):
            return failed("refused", "status_400")
        return Outcome(taken=len(batch))

    sink.always = refuse_finals
    async with running(tmp_path, sinks=[sink]) as server:
        await speak(server)
        await until(lambda: len(sink.got) == 1)
        status, page = await ask(server, "GET", "/outbox/dead?limit=2")
        assert (status, [letter["segment"] for letter in page["dead"]]) == (200, [0, 1])
        assert page["dead"][0]["reason"] == "status_400"
        # What a sink took is noted a moment later.
        while page["sinks"][0]["pending"]:
            _, page = await ask(server, "GET", "/outbox/dead?limit=2")
        assert page["sinks"] == [{"sink": "kafka", "pending": 0, "oldest_ms": None, "dead": 3}]
        _, rest = await ask(server, "GET", f"/outbox/dead?limit=2&after={page['next']}")
        assert ([letter["segment"] for letter in rest["dead"]], rest["next"], rest["sinks"]) == ([2], None, None)
        assert (await ask(server, "GET", "/outbox/dead?sink=webhook"))[1]["dead"] == []
        sink.always = ScriptedSink().always
        assert await ask(server, "POST", "/outbox/retry?sink=kafka&interview=other") == (200, {"retried": 0})
        assert await ask(server, "POST", "/outbox/retry?sink=kafka&interview=t-1") == (200, {"retried": 3})
        await until(lambda: sink.segments("t-1") == [0, 1, 2])


@pytest.mark.parametrize(
    "path", ["/outbox/dead?limit=201", "/outbox/dead?limit=x", "/outbox/dead?after=-1", "/outbox/dead?sink=../x"]
)
async def test_bad_options(tmp_path: Path, path: str) -> None:
    async with running(tmp_path) as server:
        status, body = await ask(server, "GET", path)
    assert (status, body["error"]["code"]) == (400, "bad_request")


async def test_a_bad_interview_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        assert (await ask(server, "POST", "/outbox/retry?interview=..%2fx"))[0] == 400


async def test_a_server_without_an_outbox_says_so(tmp_path: Path) -> None:
    async with running(tmp_path, store=MemoryStore()) as server:
        assert (await ask(server, "GET", "/outbox/dead"))[0] == 404
