"""Files through the door: what is uploaded is heard as a stream of its interview, and leaves nothing else behind."""

from __future__ import annotations

import asyncio
import io
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from streamsrv.runtime.settings import ArchiveSettings, SessionSettings, UploadSettings
from streamsrv.server.jobs import JOBS
from tests.support.engines import CountingEngine
from tests.support.recordings import encoded, interleaved, wav, webm
from tests.support.server import Running, running
from tests.support.speech import silence, voice

TALK = silence(0.6) + voice(1.2) + silence(0.8) + voice(2.2, seed=1) + silence(0.8)
WITHIN_S = 20.0


class Desk:
    """Somebody who uploads."""

    def __init__(self, server: Running, http: aiohttp.ClientSession, folder: Path) -> None:
        self.server = server
        self.http = http
        self.uploads = folder / "uploads"

    async def send(
        self, file: bytes | None, *, wait: str | None = "20", first: tuple[str, ...] = (), **fields: str
    ) -> tuple[int, Any, str | None]:
        """Upload; status, body and where to look.  ``first``: fields that come before the file."""
        form = aiohttp.FormData(quote_fields=False)
        fields = {"interviewId": "talk", **fields}
        for name in first:
            form.add_field(name, fields.pop(name))
        if file is not None:
            form.add_field(
                "file", io.BytesIO(file), filename="../talk \N{SNOWMAN}.wav", content_type="application/octet-stream"
            )
        for name, value in fields.items():
            form.add_field(name, value)
        query = "" if wait is None else f"?wait={wait}"
        async with self.http.post(f"{self.server.http}/transcription/upload{query}", data=form) as answer:
            return answer.status, await answer.json(), answer.headers.get("Location")

    async def ask(self, path: str, method: str = "GET") -> tuple[int, Any]:
        async with self.http.request(method, f"{self.server.http}{path}") as answer:
            return answer.status, await answer.json()

    async def until(self, path: str, *states: str) -> Any:
        """The job when it is in one of these states."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                status, body = await self.ask(path)
                assert status == 200
                if body["state"] in states:
                    return body
                await asyncio.sleep(0.01)

    def files(self) -> list[str]:
        return os.listdir(self.uploads) if self.uploads.exists() else []


@asynccontextmanager
async def desk(
    folder: Path,
    *,
    engine: CountingEngine | None = None,
    upload: UploadSettings | None = None,
    session: SessionSettings | None = None,
    archive: ArchiveSettings | None = None,
) -> AsyncIterator[Desk]:
    async with (
        running(folder, engine=engine, upload=upload, session=session, archive=archive) as server,
        aiohttp.ClientSession() as http,
    ):
        yield Desk(server, http, folder)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path) as one:
        yield one


class Held:
    """An engine that hears when it is let."""

    def __init__(self) -> None:
        self.engine = CountingEngine()
        self.engine.gate = self._gate
        self.go = asyncio.Event()
        self.asked = asyncio.Event()

    async def _gate(self, final: bool) -> None:
        self.asked.set()
        await self.go.wait()


# --- what comes back ----------------------------------------------------------------------------------------------


async def test_a_file_is_answered_with_its_transcript(here: Desk) -> None:
    status, body, location = await here.send(wav(TALK))
    assert status == 200, body
    assert [line["text"].split()[-1] for line in body["segments"]] == ["w3", "w4"], body
    assert body.pop("warnings") == []
    assert (await here.ask("/transcription/talk"))[1] == body, "the same document as GET gives"
    assert location is not None
    job = (await here.ask(location))[1]
    assert (job["state"], job["progress"], job["error"]) == ("done", 1.0, None)
    assert job["audio_ms"] == job["duration_ms"] == 5_600
    assert job["filename"] == "../talk \N{SNOWMAN}.wav"
    assert job["links"] == {"self": location, "transcript": "/transcription/talk"}
    assert here.files() == []


async def test_a_file_says_what_the_same_audio_says_live(here: Desk) -> None:
    _, uploaded, _ = await here.send(wav(TALK), interviewId="file")
    async with here.http.ws_connect(here.server.stream("live")) as ws:
        for at in range(0, len(TALK), 3_200):
            await ws.send_bytes(TALK[at : at + 3_200])
        await ws.send_json({"type": "finish"})
        async for _ in ws:
            pass
    live = (await here.ask("/transcription/live"))[1]
    shape = [(line["start_ms"], line["stop_ms"], line["text"], line["cause"]) for line in uploaded["segments"]]
    assert shape == [(line["start_ms"], line["stop_ms"], line["text"], line["cause"]) for line in live["segments"]]
    assert len(shape) == 2


@pytest.mark.parametrize(
    "file",
    [
        wav(TALK),
        encoded(TALK, "FLAC"),
        encoded(TALK, "OGG", "VORBIS"),
        encoded(TALK, "OGG", "OPUS"),
        encoded(TALK, "MP3"),
        webm(b"".join(TALK[at : at + 2] * 3 for at in range(0, len(TALK), 2))),
    ],
    ids=["wav", "flac", "vorbis", "opus", "mp3", "webm"],
)
async def test_every_kind_of_file_is_heard(here: Desk, file: bytes) -> None:
    status, body, _ = await here.send(file)
    assert status == 200, body
    assert len(body["segments"]) == 2
    assert all(line["text"].startswith("w0 w1") for line in body["segments"])


async def test_channels_become_lines_of_their_own(here: Desk) -> None:
    half = len(TALK) // 2
    left, right = TALK[:half] + bytes(len(TALK) - half), bytes(half) + TALK[half:]
    file = wav(interleaved(left, right), channels=2)
    _, apart, _ = await here.send(file, multichannel="true", interviewId="apart")
    assert {line["channel"] for line in apart["segments"]} == {0, 1}
    _, mixed, _ = await here.send(file, interviewId="mixed")
    assert {line["channel"] for line in mixed["segments"]} == {0}


async def test_options_go_with_the_stream_whatever_the_order_of_parts(here: Desk) -> None:
    order = ("speaker", "language", "interviewId")
    status, _, _ = await here.send(wav(TALK), first=order, speaker="Ada", language="en-US", engine="counting")
    assert status == 200
    (stream,) = await here.server.store.streams("talk")
    assert (stream.options.speaker, stream.options.language, stream.status) == ("Ada", "en-US", "ended")
    assert stream.options.sample_rate == 16_000
    assert [anchor.position for anchor in stream.anchors] == [0], "a file's audio runs on one clock"
    status, body, _ = await here.send(wav(TALK), hello="you", speaker="Bob")
    assert status == 200
    assert len(body["segments"]) == 4, "a second file is a second stream"


async def test_silence_is_a_transcript_without_lines(here: Desk) -> None:
    status, body, _ = await here.send(wav(silence(2.0)))
    assert (status, body["segments"]) == (200, [])


async def test_viewers_see_a_file_as_it_is_heard(here: Desk) -> None:
    async with here.http.ws_connect(here.server.stream("talk", "role=viewer")) as ws:
        assert (await ws.receive_json())["type"] == "ready"
        await here.send(wav(TALK), wait="0")
        finals: list[dict[str, Any]] = []
        async with asyncio.timeout(WITHIN_S):
            while len(finals) < 2:
                event = await ws.receive_json()
                finals += [event] if event["type"] == "final" else []
    assert [final["segment"] for final in finals] == [0, 1]


# --- jobs ---------------------------------------------------------------------------------------------------------


async def test_who_does_not_wait_is_told_where_to_look(tmp_path: Path) -> None:
    held = Held()
    async with desk(tmp_path, engine=held.engine) as here:
        status, body, location = await here.send(wav(TALK), wait="0")
        assert status == 202
        assert location is not None
        assert location == body["links"]["self"]
        assert body["state"] in ("queued", "running")
        async with asyncio.timeout(WITHIN_S):
            await held.asked.wait()
        (name,) = here.files()
        assert stat.S_IMODE((here.uploads / name).stat().st_mode) == 0o600
        running_now = await here.until(location, "running")
        assert 0.0 <= running_now["progress"] < 1.0
        assert running_now["duration_ms"] == 5_600, "as its header says"
        assert running_now["interview"] == "talk"
        held.go.set()
        done = await here.until(location, "done")
        assert done["ended_ms"] >= done["started_ms"] >= done["created_ms"]
        assert len((await here.ask("/transcription/talk"))[1]["segments"]) == 2


async def test_progress_and_eta_follow_what_is_stored(tmp_path: Path) -> None:
    engine = CountingEngine()
    turns = asyncio.Semaphore(1)

    async def gate(final: bool) -> None:
        await turns.acquire()

    engine.gate = gate
    async with desk(tmp_path, engine=engine) as here:
        _, _, location = await here.send(wav(TALK), wait="0")
        async with asyncio.timeout(WITHIN_S):
            while ((body := (await here.ask(location or ""))[1])["progress"] or 0.0) < 0.3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert 0.3 < body["progress"] < 0.6, "the first of two utterances is stored"
        assert body["eta_s"] > 0
        assert body["audio_ms"] == pytest.approx(body["progress"] * 5_600, abs=1)
        turns.release()
        await here.until(location or "", "done")


async def test_progress_is_that_of_the_channel_that_is_behind(tmp_path: Path) -> None:
    """The right one speaks first and is held; the left one is stored far beyond it."""
    engine = CountingEngine()
    calls = 0
    go = asyncio.Event()

    async def gate(final: bool) -> None:
        nonlocal calls
        calls += final
        if final and calls == 1:
            await go.wait()

    engine.gate = gate
    left = silence(2.6) + voice(1.2) + silence(1.8)
    file = wav(interleaved(left, TALK[: len(left)]), channels=2)
    async with (
        desk(tmp_path, engine=engine) as here,
        here.http.ws_connect(here.server.stream(query="role=viewer")) as ws,
    ):
        _, _, location = await here.send(file, wait="0", multichannel="true", interviewId="t-1")
        async with asyncio.timeout(WITHIN_S):
            while (event := await ws.receive_json())["type"] != "final":
                pass
        assert (event["channel"], event["start_ms"] > 2_000) == (0, True)
        body = (await here.ask(location or ""))[1]
        assert body["progress"] < 0.15, "the right one began to speak after 0.6 of 5.6 seconds"
        assert body["audio_ms"] == pytest.approx(body["progress"] * 5_600, abs=1)
        go.set()
        done = await here.until(location or "", "done")
        assert (done["progress"], done["audio_ms"], done["duration_ms"]) == (1.0, 5_600, 5_600)


async def test_a_running_job_is_cancelled_and_keeps_what_was_stored(tmp_path: Path) -> None:
    held = Held()
    async with desk(tmp_path, engine=held.engine) as here:
        _, _, location = await here.send(wav(TALK), wait="0")
        async with asyncio.timeout(WITHIN_S):
            await held.asked.wait()
        status, body = await here.ask(location or "", "DELETE")
        assert (status, body["state"]) == (200, "cancelled")
        assert here.files() == []
        (stream,) = await here.server.store.streams("talk")
        assert stream.status == "ended"
        assert (await here.ask(location or "", "DELETE"))[1]["state"] == "cancelled", "again is the same"
        interview = await here.server.store.interview("talk")
        assert interview is not None
        assert interview.status == "completed"


async def test_jobs_wait_in_order_and_a_waiting_one_is_cancelled(tmp_path: Path) -> None:
    held = Held()
    async with desk(tmp_path, engine=held.engine, upload=UploadSettings(max_running=1, max_waiting=2)) as here:
        locations = [(await here.send(wav(TALK), wait="0", interviewId=f"i{n}"))[2] or "" for n in range(3)]
        assert [(await here.ask(one))[1]["state"] for one in locations[1:]] == ["queued", "queued"]
        status, body, _ = await here.send(wav(TALK), wait="0")
        assert (status, body["error"]["code"], body["error"]["retryable"]) == (503, "full", True)
        assert len(here.files()) == 3
        assert (await here.ask(locations[1], "DELETE"))[1]["state"] == "cancelled"
        held.go.set()
        await here.until(locations[2], "done")
        assert (await here.ask(locations[0]))[1]["state"] == "done"
        assert (await here.ask("/transcription/i1"))[0] == 404, "it never became a stream"
        assert here.files() == []


async def test_what_waits_longer_than_it_may_gets_its_answer_then(tmp_path: Path) -> None:
    held = Held()
    async with desk(tmp_path, engine=held.engine) as here:
        status, body, location = await here.send(wav(TALK), wait="0.05")
        assert (status, body["state"]) == (202, "running")
        held.go.set()
        await here.until(location or "", "done")


async def test_unknown_jobs_are_not_found(here: Desk) -> None:
    for method in ("GET", "DELETE"):
        status, body = await here.ask("/transcription/jobs/job-0", method)
        assert (status, body["error"]["code"]) == (404, "not_found")


async def test_an_interview_that_goes_takes_its_jobs_along(tmp_path: Path) -> None:
    held = Held()
    async with desk(tmp_path, engine=held.engine, upload=UploadSettings(max_running=1)) as here:
        locations = [(await here.send(wav(TALK), wait="0"))[2] or "" for _ in range(2)]
        await here.server.app[JOBS].forget("talk")
        assert [(await here.ask(one))[1]["state"] for one in locations] == ["cancelled", "cancelled"]
        assert here.files() == []


# --- what is no recording ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "status", "code"),
    [
        (b"", 422, "bad_media"),
        (b"hello, I am a text and no sound at all", 415, "unsupported_media"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", 415, "unsupported_media"),
        (wav(TALK)[:44], 422, "bad_media"),
        (b"fLaC" + bytes(5_000), 422, "bad_media"),
        (wav(TALK, rate=1), 415, "unsupported_media"),
    ],
    ids=["empty", "text", "playlist", "header alone", "broken", "one hertz"],
)
async def test_what_cannot_be_decoded_is_said_and_leaves_nothing(
    here: Desk, file: bytes, status: int, code: str
) -> None:
    got, body, location = await here.send(file)
    assert (got, body["error"]["code"]) == (status, code), body
    assert body["error"]["hint"]
    job = (await here.ask(location or ""))[1]
    assert (job["state"], job["error"]["code"]) == ("failed", code)
    assert here.files() == []


async def test_a_lying_length_is_heard_as_far_as_it_goes_and_warned_of(here: Desk) -> None:
    whole = wav(TALK + silence(60.0))
    status, body, location = await here.send(whole[: 44 + len(TALK)])
    assert status == 200, body
    assert len(body["segments"]) == 2
    assert "before its header says" in body["warnings"][0]
    assert (await here.ask(location or ""))[1]["warnings"] == body["warnings"]


async def test_a_language_the_engine_does_not_know_is_refused_before_anything_is_kept(here: Desk) -> None:
    status, body, location = await here.send(wav(TALK), language="de-DE")
    assert (status, body["error"]["code"], location) == (400, "unsupported_language", None)
    assert here.files() == []
    status, body, _ = await here.send(wav(TALK), engine="nobody")
    assert (status, body["error"]["code"]) == (400, "bad_request")


async def test_a_deleted_interview_is_gone_with_its_files_and_jobs(tmp_path: Path) -> None:
    held = Held()
    async with desk(tmp_path, engine=held.engine, upload=UploadSettings(max_running=1)) as here:
        locations = [(await here.send(wav(TALK), wait="0"))[2] or "" for _ in range(2)]
        async with asyncio.timeout(WITHIN_S):
            await held.asked.wait()
        async with here.http.delete(f"{here.server.http}/transcription/talk") as answer:
            assert answer.status in (200, 204)
        assert here.files() == []
        assert [(await here.ask(one))[0] for one in locations] == [404, 404]
        assert (await here.ask("/transcription/talk"))[0] == 404
