"""The list of interviews, their end, and transcripts on either clock, over HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from streamsrv.commands import Options
from streamsrv.runtime import streams as module
from streamsrv.runtime.settings import UploadSettings
from streamsrv.server.recordings import RECORDER
from streamsrv.stores.base import Anchor, StreamStats
from tests.server.test_upload import TALK, Held, desk
from tests.stores.builders import begin, final
from tests.support.engines import CountingEngine
from tests.support.recordings import wav
from tests.support.server import Running, running
from tests.support.watching import SENTENCE, peer, stored, until, viewer

MONDAY_MS = 1_795_431_600_000  # 2026-11-23T11:00:00Z
HOUR_MS = 3_600_000


async def ask(server: Running, path: str, method: str = "GET") -> tuple[int, Any]:
    async with aiohttp.ClientSession() as http, http.request(method, server.http + path) as found:
        text = await found.text()
        return found.status, await found.json() if "json" in found.headers.get("Content-Type", "") else text


async def talked(server: Running, interview: str, at_ms: int, *, ended: bool = True) -> None:
    _, key = await begin(server.store, interview, f"s-{interview}", options=Options(speaker="Ada"), now_ms=at_ms)
    await server.store.keep_progress(key, (0,), (Anchor(position=0, utc_ms=at_ms),))
    await server.store.keep_final(key, final(1, text="good morning"))
    if ended:
        await server.store.end_stream(key, stats=StreamStats(), now_ms=at_ms + 9_000)


# --- the list ----------------------------------------------------------------------------------------------------


async def test_an_empty_list(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        assert await ask(server, "/transcription") == (200, {"interviews": [], "next": None})


async def test_newest_first_with_times_and_links(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        await talked(server, "old", MONDAY_MS)
        await talked(server, "new", MONDAY_MS + HOUR_MS, ended=False)
        status, body = await ask(server, "/transcription")
        assert status == 200
        assert [one["id"] for one in body["interviews"]] == ["new", "old"]
        assert body["interviews"][1] == {
            "id": "old",
            "status": "completed",
            "scheduled": None,
            "started": "2026-11-23T11:00:00.000Z",
            "ended": "2026-11-23T11:00:09.000Z",
            "streams": 1,
            "links": {
                "transcript": "/transcription/old",
                "events": "/transcription/old/events",
                "recordings": "/transcription/old/recordings",
            },
        }
        for link in ("transcript", "recordings"):
            assert (await ask(server, body["interviews"][1]["links"][link]))[0] == 200


async def test_pages_lead_through_all(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        for number in range(7):
            await talked(server, f"i{number}", MONDAY_MS + number // 2)
        found: list[str] = []
        path = "/transcription?limit=3"
        pages = 0
        while True:
            _, body = await ask(server, path)
            found += [one["id"] for one in body["interviews"]]
            pages += 1
            if body["next"] is None:
                break
            path = f"/transcription?limit=3&cursor={body['next']}"
        assert found == ["i6", "i5", "i4", "i3", "i2", "i1", "i0"]
        assert pages == 3


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("status=live", ["i2"]),
        ("status=completed", ["i3", "i1", "i0"]),
        ("status=scheduled", []),
        ("since=2026-11-23T12:00:00Z", ["i3", "i2", "i1"]),
        ("since=2026-11-23T12:00:00", ["i3", "i2", "i1"]),
        ("since=2026-11-23T14:00:00%2B02:00&until=2026-11-23T14:00:00Z", ["i2", "i1"]),
        ("until=2026-11-23", []),
        ("limit=1", ["i3"]),
    ],
)
async def test_status_and_times_choose(tmp_path: Path, query: str, wanted: list[str]) -> None:
    async with running(tmp_path) as server:
        for number in range(4):
            await talked(server, f"i{number}", MONDAY_MS + number * HOUR_MS, ended=number != 2)
        _, body = await ask(server, f"/transcription?{query}")
        assert [one["id"] for one in body["interviews"]] == wanted


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=x",
        "limit=99999999999999999999",
        "status=dead",
        "since=yesterday",
        "until=2026-13-01",
        "cursor=x",
        "cursor=" + "A" * 5_000,
        "cursor=WzEsMl0",
        "cursor=%F0%9F%92%A9",
    ],
)
async def test_what_is_no_question_is_refused(tmp_path: Path, query: str) -> None:
    async with running(tmp_path) as server:
        status, body = await ask(server, f"/transcription?{query}")
        assert (status, body["error"]["code"]) == (400, "bad_request")
        assert query.partition("=")[0] in body["error"]["message"]


# --- the clock ---------------------------------------------------------------------------------------------------


async def test_times_of_the_audio_and_of_the_wall(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        await talked(server, "talk", MONDAY_MS)
        _, audio = await ask(server, "/transcription/talk?clock=audio")
        assert audio == (await ask(server, "/transcription/talk"))[1]
        _, wall = await ask(server, "/transcription/talk?clock=wall")
        line, moved = audio["segments"][0], wall["segments"][0]
        assert (line["start_ms"], line["stop_ms"], line["words"][1]["start_ms"]) == (1_000, 2_000, 1_500)
        assert (moved["start"], moved["stop"]) == ("2026-11-23T11:00:01.000Z", "2026-11-23T11:00:02.000Z")
        assert moved["words"][1]["start"] == "2026-11-23T11:00:01.500Z"
        assert wall["interview"]["zero"] == wall["streams"][0]["started"] == "2026-11-23T11:00:00.000Z"
        assert "_ms" not in re.sub(r"(silence|audio)_ms", "", str(wall))
        assert (moved["text"], moved["label"]) == (line["text"], line["label"])


@pytest.mark.parametrize(("form", "point"), [("srt", ","), ("vtt", ".")])
async def test_subtitles_tell_the_time_of_day(tmp_path: Path, form: str, point: str) -> None:
    async with running(tmp_path) as server:
        await talked(server, "talk", MONDAY_MS + 13 * HOUR_MS - 1_500)
        _, audio = await ask(server, f"/transcription/talk?format={form}")
        assert f"00:00:01{point}000 --> 00:00:02{point}000" in audio
        _, wall = await ask(server, f"/transcription/talk?format={form}&clock=wall")
        assert f"23:59:59{point}500 --> 24:00:00{point}500" in wall


async def test_another_clock_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        await talked(server, "talk", MONDAY_MS)
        assert (await ask(server, "/transcription/talk?clock=sun"))[0] == 400
        assert (await ask(server, "/transcription/talk?format=txt&clock=wall")) == (200, "good morning\n")


# --- the end -----------------------------------------------------------------------------------------------------


async def test_deleting_leaves_nothing_to_find(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        async with peer(server, query="record=true") as speaker:
            await speaker.say()
            await speaker.finish()
        folder = server.app[RECORDER].folder("talk")
        assert folder.exists()
        assert await ask(server, "/transcription/talk", "DELETE") == (204, "")
        assert (await ask(server, "/transcription/talk"))[0] == 404
        assert (await ask(server, "/transcription/talk/recordings"))[0] == 404
        assert (await ask(server, "/transcription"))[1]["interviews"] == []
        assert not folder.exists()
        status, body = await ask(server, "/transcription/talk", "DELETE")
        assert (status, body["error"]["code"]) == (404, "not_found")


async def test_live_streams_and_viewers_end_with_a_word(tmp_path: Path) -> None:
    async with running(tmp_path) as server, peer(server, query="record=true") as one, peer(server) as two:
        token = one.events[0]["resume_token"]
        async with viewer(server) as watch, viewer(server, "other") as other:
            await one.say()
            await two.ws.send_bytes(SENTENCE[: len(SENTENCE) // 2])
            await two.until("speech_started")
            assert (await ask(server, "/transcription/talk", "DELETE"))[0] == 204
            for end in (one, two, watch):
                assert await end.end() == 1008
                assert (end.events[-1]["code"], end.events[-1]["retryable"]) == ("stopped", False)
            assert not other.ws.closed
        assert (server.streams.connected, await stored(server), await server.store.interview("talk")) == (0, [], None)
        assert not server.app[RECORDER].folder("talk").exists()
        with pytest.raises(aiohttp.WSServerHandshakeError, match="404"):
            async with peer(server, query=f"resume={token}"):
                pass


async def test_a_stream_that_waits_for_its_speaker_ends_too(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        async with aiohttp.ClientSession() as http:
            ws = await http.ws_connect(server.stream("talk"))
            await ws.receive()
            ws._response.connection.transport.abort()  # type: ignore[union-attr]
        await until(lambda: server.speakers == 0)
        assert (await ask(server, "/transcription/talk", "DELETE"))[0] == 204
        assert await server.store.left_streams() == ()


async def test_a_stream_that_cannot_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_WITHIN_S", 0.1)
    engine = CountingEngine()
    engine.gate = _never
    async with running(tmp_path, engine=engine) as server, peer(server) as speaker:
        await speaker.ws.send_bytes(SENTENCE)
        await speaker.until("speech_stopped")
        assert (await ask(server, "/transcription/talk", "DELETE"))[0] == 204
        assert await speaker.end() == 1008
        assert speaker.events[-1]["code"] == "stopped"
        assert server.streams.connected == 0
        async with peer(server) as again:
            assert again.events[0]["epoch"] == 1


async def _never(final: bool) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("heard", [True, False], ids=["running", "waiting"])
async def test_uploads_go_with_their_interview(tmp_path: Path, heard: bool) -> None:
    held = Held()
    upload = UploadSettings(max_running=1)
    async with desk(tmp_path, engine=held.engine, upload=upload) as here:
        if not heard:
            await here.send(wav(TALK), wait="0", interviewId="other")
        status, job, _ = await here.send(wav(TALK), wait="0")
        assert (status, len(here.files())) == (202, 1 if heard else 2)
        await held.asked.wait()
        assert await ask(here.server, "/transcription/talk", "DELETE") == (204, "")
        assert (await ask(here.server, f"/transcription/jobs/{job['id']}"))[0] == 404
        assert len(here.files()) == (0 if heard else 1)
        assert await here.server.store.streams("talk") == ()
        assert (await ask(here.server, "/transcription/talk", "DELETE"))[0] == 404


async def test_newcomers_are_refused_while_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path) as server:
        await talked(server, "talk", MONDAY_MS)
        go, begun = asyncio.Event(), asyncio.Event()
        monkeypatch.setattr(server.store, "delete_interview", _held(server.store.delete_interview, begun, go))
        deleting = asyncio.create_task(ask(server, "/transcription/talk", "DELETE"))
        await begun.wait()
        with pytest.raises(aiohttp.WSServerHandshakeError, match="409"):
            async with peer(server):
                pass
        go.set()
        assert (await deleting)[0] == 204
        async with peer(server) as speaker:
            await speaker.say()


def _held(
    delete: Callable[[str], Awaitable[bool]], begun: asyncio.Event, go: asyncio.Event
) -> Callable[[str], Awaitable[bool]]:
    async def late(interview: str) -> bool:
        begun.set()
        await go.wait()
        return await delete(interview)

    return late


async def test_deleting_while_streams_begin(tmp_path: Path) -> None:
    """Whoever gets in before, during or after: served or told, and nothing half remains."""
    async with running(tmp_path) as server:

        async def speak() -> int | None:
            try:
                async with peer(server) as speaker:
                    await speaker.ws.send_bytes(SENTENCE)
                    await speaker.ws.send_json({"type": "finish"})
                    return await speaker.end()
            except aiohttp.WSServerHandshakeError as refused:
                return refused.status

        async def delete() -> int:
            await asyncio.sleep(0)
            return (await ask(server, "/transcription/talk", "DELETE"))[0]

        codes = await asyncio.gather(*(speak() if n % 3 else delete() for n in range(24)))
        assert set(codes) <= {1000, 1008, 1012, 204, 404, 409}
        names = {name[0] for name in await stored(server)}
        assert names <= {stream.id for stream in await server.store.streams("talk")}
        assert (await ask(server, "/transcription/talk", "DELETE"))[0] in (204, 404)
        assert await stored(server) == []
