"""Recordings of a running server: asked for, listed, downloaded, deleted."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import msgspec
import numpy as np
import pytest
import soundfile

from streamsrv.runtime.settings import ArchiveSettings
from streamsrv.server.recordings import RECORDER
from tests.support.server import Running, running
from tests.support.speech import silence, voice
from tests.support.watching import End, peer, until

SOUND = silence(0.7) + voice(1.4) + silence(1.1)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        return msgspec.json.decode(self.body, type=dict[str, object])


async def get(server: Running, path: str, **headers: str) -> Answer:
    async with aiohttp.ClientSession() as http, http.get(server.http + path, headers=headers) as found:
        return Answer(status=found.status, headers=dict(found.headers), body=await found.read())


async def recorded(server: Running, sound: bytes = SOUND, query: str = "record=true&speaker=Ada") -> End:
    async with peer(server, query=query) as speaker:
        for at in range(0, len(sound), 3_201):
            await speaker.ws.send_bytes(sound[at : at + 3_201])
        await speaker.finish()
        return speaker


def heard(folder: Path, flac: bytes) -> bytes:
    path = folder / "downloaded.flac"
    path.write_bytes(flac)
    samples, rate = soundfile.read(path, dtype="int16")
    assert rate == 16_000
    return bytes(np.asarray(samples).tobytes())


async def the_one(server: Running) -> tuple[dict[str, object], str]:
    """The only recording, and where it is."""
    listed = msgspec.json.decode((await get(server, "/transcription/talk/recordings")).body)
    (one,) = listed["recordings"]
    return one, one["links"]["flac"]


async def test_what_was_said_can_be_heard_again(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as server:
        speaker = await recorded(server)
        one, link = await the_one(server)
        assert (one["stream"], one["channel"], one["speaker"]) == (speaker.events[0]["stream"], 0, "Ada")
        assert (one["seconds"], one["complete"]) == (len(SOUND) / 32_000, True)
        found = await get(server, link)
        assert (found.status, found.headers["Content-Type"]) == (200, "audio/flac")
        assert heard(tmp_path, found.body) == SOUND
        assert speaker.events[0]["options"]["record"] is True


async def test_ranges_are_served(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        await recorded(server)
        _, link = await the_one(server)
        whole = (await get(server, link)).body
        part = await get(server, link, Range="bytes=100-199")
        assert (part.status, part.body) == (206, whole[100:200])
        assert part.headers["Content-Range"] == f"bytes 100-199/{len(whole)}"
        assert (await get(server, link, Range=f"bytes={len(whole) + 5}-")).status == 416


async def test_a_cut_and_resumed_stream_is_one_recording(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as server:
        async with aiohttp.ClientSession() as http:
            ws = await http.ws_connect(server.stream("talk", "record=true"))
            first = End(ws)
            ready = await first.event()
            await ws.send_bytes(SOUND[:60_000])
            await first.until("speech_started")
            ws._response.connection.transport.abort()  # type: ignore[union-attr]
        await until(lambda: server.speakers == 0)
        async with peer(server, query=f"resume={ready['resume_token']}") as again:
            assert again.events[0]["epoch"] == 2
            await again.ws.send_bytes(SOUND[2 * again.events[0]["resume_at"] :])
            await again.finish()
        one, link = await the_one(server)
        assert one["complete"] is True
        assert heard(tmp_path, (await get(server, link)).body) == SOUND


async def test_nothing_is_recorded_unless_asked(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        speaker = await recorded(server, query="")
        listed = await get(server, "/transcription/talk/recordings")
        assert listed.json == {"interview": "talk", "recordings": []}
        stream = speaker.events[0]["stream"]
        assert (await get(server, f"/transcription/talk/recordings/{stream}/0.flac")).status == 404
        assert not (tmp_path / "recordings").exists()


async def test_configure_may_ask_for_it_before_the_first_audio(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as server:
        async with peer(server) as speaker:
            await speaker.ws.send_json({"type": "configure", "record": True, "sample_rate": 8_000})
            assert (await speaker.until("configured"))["options"]["record"] is True
            await speaker.ws.send_bytes(voice(1.0, rate=8_000))
            await speaker.finish()
        one, _ = await the_one(server)
        assert one["seconds"] == pytest.approx(1.0, abs=0.01)


async def test_a_live_stream_is_listed_and_not_yet_served(tmp_path: Path) -> None:
    async with running(tmp_path) as server, peer(server, query="record=true") as speaker:
        await speaker.ws.send_bytes(SOUND)
        await speaker.until("final")
        kept = server.app[RECORDER].kept
        while not await kept("talk"):
            pass
        one, link = await the_one(server)
        assert one["complete"] is False
        assert (await get(server, link)).status == 409
        await speaker.finish()
        assert (await get(server, link)).status == 200


async def test_a_server_may_refuse_to_record(tmp_path: Path) -> None:
    async with running(tmp_path, archive=ArchiveSettings(allow_recording=False)) as server:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            async with peer(server, query="record=true"):
                pass
        assert await server.store.interview("talk") is None
        async with peer(server) as speaker:
            await speaker.ws.send_json({"type": "configure", "record": True})
            assert (await speaker.until("error"))["code"] == "forbidden"


@pytest.mark.parametrize(
    "path", ["x/0.flac", "st-1/0.flac", "{stream}/1.flac", "{stream}/00.flac", "..%2F..%2Fx/0.flac"]
)
async def test_what_is_not_there_is_not_found(tmp_path: Path, path: str) -> None:
    async with running(tmp_path) as server:
        speaker = await recorded(server)
        found = await get(server, f"/transcription/talk/recordings/{path.format(stream=speaker.events[0]['stream'])}")
        assert found.status == 404
        assert (await get(server, "/transcription/nobody/recordings")).status == 404
