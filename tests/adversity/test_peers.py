"""Peers that fall silent, vanish, leave rudely, or never read (rows 15 and 43 to 45)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from streamsrv.runtime.settings import SessionSettings
from streamsrv.server import app as application
from streamsrv.server import speaker as speaking
from streamsrv.server.stream import SPEAKERS
from tests.adversity.arena import UTTERANCE, Arena, arena, eventually
from tests.support.raw import BINARY, PING, PONG, Raw, close_frame, frame, text
from tests.support.speech import voice

TALKING = voice(1.2)
"""The beginning of an utterance: nothing of it is final yet."""
QUICK = SessionSettings(idle_timeout_s=1.0, resume_window_s=0.1)


async def talking(ring: Arena) -> Raw:
    """A peer in mid-utterance."""
    peer = await ring.raw()
    await peer.send(frame(BINARY, TALKING))
    while (await peer.event())["type"] != "speech_started":
        pass
    return peer


async def kept(ring: Arena) -> list[str]:
    """What is stored when the stream has ended."""
    await ring.ended()
    return await ring.finals()


# --- row 15: silence ------------------------------------------------------------------------------------------------


async def test_row_15_a_silent_speaker_is_told_and_closed_with_4408(tmp_path: Path) -> None:
    async with arena(tmp_path, session=QUICK, bystander=False) as ring:
        peer = await ring.raw()
        await peer.send(frame(BINARY, TALKING))
        end = await peer.end()
        assert (end.code, end.error) == (4408, "idle")
        assert end.events[-1]["retryable"] is True
        assert await kept(ring) == ["w0 w1"], "and the last words are stored all the same"


async def test_row_15_who_sends_anything_stays(tmp_path: Path) -> None:
    messages = (text({"type": "keepalive"}), frame(BINARY, bytes(640)), frame(BINARY), text({"type": "flush"}))

    async def stay(message: bytes) -> int | None:
        peer = await ring.raw()
        for _ in range(7):
            await asyncio.sleep(0.2)  # the idle timeout is real seconds, at least one
            await peer.send(message)
        await peer.send(text({"type": "finish"}))
        return (await peer.end()).code

    async with arena(tmp_path, session=QUICK, bystander=False) as ring:
        assert await asyncio.gather(*map(stay, messages)) == [1000] * len(messages)


async def test_row_15_pings_are_no_speech(tmp_path: Path) -> None:
    """A library that pings by itself does not keep a forgotten session open."""
    async with arena(tmp_path, session=QUICK, bystander=False) as ring:
        peer = await ring.raw()
        pinging = asyncio.create_task(_ping(peer))
        end = await peer.end()
        pinging.cancel()
        assert (end.code, end.error) == (4408, "idle")


async def _pinged(peer: Raw) -> None:
    while (await peer.frame())[0] != PING:
        pass


async def _ping(peer: Raw) -> None:
    while True:
        await peer.send(frame(PING, b"there?"))
        await asyncio.sleep(0.1)


# --- row 43: the client vanishes ------------------------------------------------------------------------------------


async def test_row_43_who_answers_no_ping_is_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a firewall that drops everything: no FIN, no RST, no pong."""
    monkeypatch.setattr(application, "HEARTBEAT_S", 0.4)
    async with arena(tmp_path, session=SessionSettings(resume_window_s=0.1), bystander=False) as ring:
        peer = await talking(ring)
        await _pinged(peer)
        assert await kept(ring) == ["w0 w1"]
        assert [line["error"] for line in ring.log() if line["event"] == "speaker.cut"] == ["vanished"]


async def test_row_43_who_answers_pings_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "HEARTBEAT_S", 0.2)
    async with arena(tmp_path, bystander=False) as ring:
        peer = await ring.raw()
        for _ in range(4):
            await _pinged(peer)
            await peer.send(frame(PONG))
        await peer.send(text({"type": "finish"}))
        assert (await peer.end()).code == 1000


async def test_a_peer_held_up_by_us_is_not_taken_for_vanished(tmp_path: Path) -> None:
    """While back-pressure keeps the socket unread, pongs wait in it too."""
    async with arena(tmp_path, bystander=False) as ring:
        talker = await ring.join()
        (speaker,) = ring.server.app[SPEAKERS]
        speaker.held = True
        for seconds in range(0, 600, 2):
            speaker.pulse(speaker.last_seen + seconds, application.HEARTBEAT_S)
        speaker.held = False
        assert await talker.finish() == 1000


# --- row 44: leaving in mid-utterance -------------------------------------------------------------------------------


async def test_row_44_fin_in_mid_utterance(ring: Arena) -> None:
    (await talking(ring)).close()
    assert await kept(ring) == ["w0 w1"]


async def test_row_44_half_close_in_mid_utterance(ring: Arena) -> None:
    peer = await talking(ring)
    peer.writer.write_eof()
    await peer.gone()
    assert await kept(ring) == ["w0 w1"]


async def test_row_44_rst_in_mid_utterance(ring: Arena) -> None:
    (await talking(ring)).reset()
    assert await kept(ring) == ["w0 w1"]


async def test_audio_and_a_close_frame_sent_just_before_hanging_up_are_read(tmp_path: Path) -> None:
    """All of it may arrive with the FIN: the close frame ends the stream at once, and the audio before it counts."""
    async with arena(tmp_path, session=SessionSettings(resume_window_s=600.0)) as ring:
        for number, code in enumerate((1000, 1001, None)):
            peer = await ring.raw(f"/transcription/stream/raw-{number}")
            frames = b"".join(frame(BINARY, UTTERANCE[at : at + 160]) for at in range(0, len(UTTERANCE), 160))
            await peer.send(frames + close_frame(code))
            peer.close()
            await ring.ended(f"raw-{number}")
            assert await ring.finals(f"raw-{number}") == ["w0 w1 w2"], code


async def test_a_cut_in_the_middle_of_a_frame_keeps_what_came_before(ring: Arena) -> None:
    peer = await talking(ring)
    await peer.send(frame(BINARY, bytes(640), length=64_000))
    peer.close()
    assert await kept(ring) == ["w0 w1"]


# --- row 45: never reads --------------------------------------------------------------------------------------------


async def test_row_45_who_never_reads_is_cut_and_the_others_do_not_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speaking, "SEND_WITHIN_S", 0.3)
    settings = SessionSettings(resume_window_s=0.1, max_messages_per_s=100_000)
    async with arena(tmp_path, session=settings) as ring:
        stuck = await ring.connect(receive_buffer=4_096)
        await stuck.upgrade()
        # Each of these is answered by a warning nobody fetches.
        nagging = asyncio.create_task(stuck.send(text({"type": "nag" * 13}) * 20_000))
        calm = await ring.join()
        while not any(line["event"] == "speaker.cut" for line in ring.log()):
            assert (await calm.utter())["text"].startswith("w0 w1")
        why = next(line["error"] for line in ring.log() if line["event"] == "speaker.cut")
        assert why in ("queue_full", "stalled")
        assert await calm.finish() == 1000
        await nagging
        await ring.ended()


async def test_row_45_a_stalled_reader_with_a_short_queue_is_cut_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too little for the queue to fill, too much for the kernel to take."""
    monkeypatch.setattr(speaking, "SEND_WITHIN_S", 0.3)
    monkeypatch.setattr(speaking, "MAX_EVENTS", 100_000)
    settings = SessionSettings(resume_window_s=0.1, max_messages_per_s=100_000)
    async with arena(tmp_path, session=settings) as ring:
        stuck = await ring.connect(receive_buffer=4_096)
        await stuck.upgrade()
        await stuck.send(text({"type": "nag" * 13}) * 5_000)
        await eventually(
            lambda: any(line["event"] == "speaker.cut" and line["error"] == "stalled" for line in ring.log()),
            lambda: ring.log()[-5:],
        )
        await ring.ended()
