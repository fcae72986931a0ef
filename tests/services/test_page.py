"""The page in a real browser, on the real server: heard, cut, killed, refused."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from pathlib import Path

import pytest
import soundfile
from aiohttp import ClientSession
from playwright.async_api import Error, expect

from streamsrv.commands import Drain
from streamsrv.events import AnyEvent, Closed
from streamsrv.runtime.engines import make_engine
from streamsrv.runtime.settings import SessionSettings
from streamsrv.server.speaker import Speaker
from streamsrv.server.stream import SPEAKERS
from streamsrv.settings import ServerSettings
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.services.browser import WITHIN_MS, seat, wav
from tests.support.server import Running, running
from tests.support.speech import silence, voice

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
JFK = ROOT / "tests" / "data" / "speech" / "jfk.flac"
KEY = "a-key-for-tests"
TALK = silence(0.8) + voice(1.5) + silence(1.2) + voice(2.2, seed=1) + silence(1.4) + voice(1.1, seed=2) + silence(0.7)


Heard = list[tuple[int, int, int, str]]


async def heard(folder: Path, interview: str) -> Heard:
    """What is stored of an interview of one stream, which has ended: segment, first and last sample, text."""
    store = SqliteStore(SqliteSettings(data_dir=str(folder)), server=False)
    await store.open()
    try:
        assert [stream.status for stream in await store.streams(interview)] == ["ended"]
        finals = [kept.final for kept in await store.finals(interview)]
    finally:
        await store.close()
    return [(final.segment, final.start, final.stop, final.text) for final in finals]


async def undisturbed(folder: Path, audio: bytes) -> Heard:
    """What a plain client that is never cut gets for the same samples."""
    async with running(folder) as server:
        async with ClientSession() as http, http.ws_connect(server.stream("plain")) as ws:
            for at in range(0, len(audio), 32_000):
                await ws.send_bytes(audio[at : at + 32_000])
            await ws.send_json({"type": "finish"})
            async for _ in ws:
                pass
        return await heard(folder, "plain")


def cut(server: Running) -> None:
    """Drop every connection without a close frame."""
    speakers: set[Speaker] = server.app[SPEAKERS]
    assert speakers
    for speaker in tuple(speakers):
        speaker.cut("test")


WATCH = """() => {
    window.promised = [];
    const stable = document.getElementById("stable");
    new MutationObserver(() => window.promised.push(stable.textContent)).observe(stable, { childList: true });
}"""


async def test_speech_at_the_microphone_becomes_captions_and_a_transcript(tmp_path: Path) -> None:
    samples, rate_hz = soundfile.read(JFK, dtype="int16")
    microphone = wav(tmp_path / "voice.wav", samples.tobytes(), rate_hz=rate_hz)
    engine, _ = make_engine("sphinx", model=None, device="auto", workers=1)
    async with running(tmp_path / "data", engine=engine) as server, seat(server.http, microphone=microphone) as one:
        await one["interview"].fill("spoken")
        await one.page.evaluate(WATCH)
        await one["go"].click()
        await one.sees("listening")
        await one.finals(3)
        await expect(one["engine"]).to_contain_text("sphinx")
        await one["go"].click()
        await one.sees("ended")
        shown = await one.lines()
        assert "fellow" in " ".join(shown)
        promised = [text for text in await one.page.evaluate("window.promised") if text]
        assert promised
        assert all(any(line.startswith(text) for line in shown) for text in promised)
        assert (await one.download("Text")).splitlines() == shown


async def test_a_recording_as_spoken_survives_cut_connections(tmp_path: Path) -> None:
    wanted = await undisturbed(tmp_path / "plain", TALK)
    assert len(wanted) == 3
    recording = wav(tmp_path / "talk.wav", TALK)
    async with running(tmp_path / "data") as server, seat(server.http) as one:
        await one.choose(recording, "spoken", "cut")
        await one["go"].click()
        await expect(one["partial"]).to_be_visible(timeout=WITHIN_MS)
        cut(server)  # inside the first segment
        await one.sees("reconnecting")
        await one.sees("listening")
        await one.finals(2)
        cut(server)
        await one.sees("ended")
        assert await heard(tmp_path / "data", "cut") == wanted
        assert await one.lines() == [text for *_, text in wanted]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def process(port: int, folder: Path) -> asyncio.subprocess.Process:
    made = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.counting_server", str(port), str(folder)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert made.stdout is not None
    assert await asyncio.wait_for(made.stdout.readline(), 30) == b"ready\n"
    return made


async def test_a_recording_at_full_speed_survives_a_killed_server(tmp_path: Path) -> None:
    long = TALK * 12  # 107 s: more than the page keeps and more than the server buffers
    wanted = await undisturbed(tmp_path / "plain", long)
    recording = wav(tmp_path / "long.wav", long)
    port = free_port()
    server = await process(port, tmp_path / "data")
    try:
        async with seat(f"http://127.0.0.1:{port}") as one:
            await one.choose(recording, "fast", "killed")
            await one["go"].click()
            await one.finals(3)
            server.send_signal(signal.SIGKILL)
            await server.communicate()
            await one.sees("reconnecting")
            server = await process(port, tmp_path / "data")
            await one.sees("ended")
            assert await heard(tmp_path / "data", "killed") == wanted
            assert await one.lines() == [text for *_, text in wanted]
    finally:
        server.kill()
        await server.communicate()


async def test_a_key_is_asked_for_only_when_needed(tmp_path: Path) -> None:
    recording = wav(tmp_path / "talk.wav", TALK)
    guarded = ServerSettings(api_keys=(KEY,))
    async with running(tmp_path / "data", server=guarded) as server, seat(server.http) as one:
        await expect(one["key"]).to_be_hidden()
        await one.choose(recording, "fast", "guarded")
        await one["go"].click()
        await one.sees("key")
        await expect(one["key"]).to_be_focused()
        for wrong, said in (("not-this-key", "does not open"), ("no(t)@token", "cannot send")):
            await one["key"].fill(wrong)
            await one["key"].press("Enter")
            await expect(one["notice"]).to_contain_text(said, timeout=WITHIN_MS)
        await one["key"].fill(KEY)
        await one["key"].press("Enter")
        await one.sees("ended")
        await expect(one["notice"]).to_be_hidden()
        assert len(await one.lines()) == 3
        assert (await one.download("SRT")).count("-->") >= 3


async def test_the_servers_own_words_are_shown(tmp_path: Path) -> None:
    recording = wav(tmp_path / "talk.wav", TALK * 3)
    short = SessionSettings(max_stream_s=3)
    async with running(tmp_path / "data", session=short) as server, seat(server.http) as one:
        await one.choose(recording, "spoken", "too-long")
        await one["go"].click()
        await one.sees("error")
        await expect(one["notice"]).to_contain_text("longer than 3 s")
        await expect(one["notice-hint"]).to_contain_text("new stream")
        await expect(one["transcript"]).to_be_visible()
        await expect(one["go"]).to_have_text("Start")


async def test_a_stream_that_ended_meanwhile_is_told(tmp_path: Path) -> None:
    recording = wav(tmp_path / "talk.wav", TALK)
    hasty = SessionSettings(resume_window_s=1.0)
    async with running(tmp_path / "data", session=hasty) as server, seat(server.http) as one:
        await one.choose(recording, "spoken", "away")
        await one["go"].click()
        await expect(one["partial"]).to_be_visible(timeout=WITHIN_MS)
        server.streams._drain = Drain(
            within_s=1.0
        )  # nobody is let in, so the resume is refused until the stream's time is over
        cut(server)
        await one.sees("reconnecting")
        async with asyncio.timeout(WITHIN_MS / 1000):
            while True:
                async with ClientSession() as http, http.get(f"{server.http}/transcription/away") as response:
                    if (await response.json())["streams"][0]["status"] == "ended":
                        break
                await asyncio.sleep(0.2)
        server.streams._drain = None
        await one.sees("error")
        await expect(one["notice"]).to_contain_text("ended the stream")
        await expect(one["notice-hint"]).to_contain_text("at the end may be missing")


async def test_a_resume_that_comes_after_the_end_of_all_that_was_said_just_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line breaks when the stream has ended, before the page hears of it: who comes back is refused with 410, and
    has lost nothing."""
    put = Speaker.put

    def break_off(self: Speaker, event: AnyEvent) -> None:
        if isinstance(event, Closed):
            return self.cut("test")
        put(self, event)

    monkeypatch.setattr(Speaker, "put", break_off)
    recording = wav(tmp_path / "talk.wav", TALK)
    async with running(tmp_path / "data") as server, seat(server.http) as one:
        await one.choose(recording, "fast", "late")
        await one["go"].click()
        await one.sees("ended")
        await expect(one["notice"]).to_be_hidden()
        assert await one.lines() == [text for *_, text in await heard(tmp_path / "data", "late")]
        late = server.numbers.registry.get_sample_value("streamsrv_refused_total", {"code": "stream_ended"})
        assert late


async def test_what_the_form_does_not_take_never_reaches_the_server(tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"this is not sound")
    async with running(tmp_path / "data") as server, seat(server.http) as one:
        for bad in ("", "-x", "a/b", "a..b", "upload", "x" * 129):
            await one["interview"].evaluate("(field, text) => { field.value = text; }", bad)
            await one["go"].click()
            assert not await one["interview"].evaluate("field => field.validity.valid")
            await one.sees("idle")
        await one.page.get_by_text("Audio file").click()
        await one["interview"].fill("fine")
        await one["go"].click()
        assert not await one["file"].evaluate("field => field.validity.valid")
        await one["file"].set_input_files(broken)
        await one["go"].click()
        await one.sees("error")
        await expect(one["notice"]).to_contain_text("cannot read this recording")
        assert server.streams.connected == 0


async def test_the_keyboard_is_enough_and_a_phone_is_wide_enough(tmp_path: Path) -> None:
    recording = wav(tmp_path / "talk.wav", TALK)
    async with running(tmp_path / "data") as server, seat(server.http, width=360, dark=True) as one:
        await one["file"].set_input_files(recording)
        await one.page.keyboard.press("Tab")
        await one.page.keyboard.press("ArrowRight")
        await expect(one["file"]).to_be_visible()
        for _ in range(3):
            await one.page.keyboard.press("Tab")
        await expect(one["interview"]).to_be_focused()
        await one["pace"].select_option("fast")
        await one["interview"].press("Enter")
        await one.sees("ended")
        assert len(await one.lines()) == 3
        await expect(one["go"]).to_be_focused()
        await expect(one["go"]).to_have_text("New talk")
        await one.page.keyboard.press("Enter")
        await expect(one["interview"]).to_be_visible()
        width = await one.page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360


async def test_the_browser_refuses_markup_from_text(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as server, seat(server.http) as one:
        with pytest.raises(Error, match="TrustedHTML"):
            await one.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<i>x')")


BACKLOG = """async () => {
    const { Backlog } = await import("/page/backlog.js");
    const said = [], kept = new Backlog(10);
    const block = (...numbers) => Int16Array.from(numbers);
    said.push(kept.append(block(1, 2, 3)), kept.append(block(4, 5, 6, 7)), kept.append(block(8, 9, 10, 11)));
    said.push([...kept.read(2, 4)], [...kept.read(6, 9)], [...kept.read(7, 1)]);
    said.push(kept.forget(2), kept.forget(4), kept.start, [...kept.read(1, 4)]);
    said.push(kept.append(block(8, 9, 10, 11, 12, 13)), [...kept.read(5, 99)], kept.stop);
    return said;
}"""


async def test_audio_is_kept_by_place_and_never_beyond_the_bound(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as server, seat(server.http) as one:
        assert await one.page.evaluate(BACKLOG) == [
            *(True, True, False),
            *([3, 4, 5, 6], [7], []),
            *(False, True, 3, [0, 0, 4, 5]),
            *(True, [6, 7, 8, 9, 10, 11, 12, 13], 13),
        ]
