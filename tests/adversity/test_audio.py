"""Audio that is broken, mislabelled, too fast or too slow (rows 9 to 11, and 14)."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from streamsrv.runtime.settings import SessionSettings
from tests.adversity.arena import Arena, Talker, arena
from tests.support.engines import CountingEngine
from tests.support.raw import BINARY, frame, handshake, text
from tests.support.speech import RATE, silence, voice

SPEECH = voice(1.2) + silence(0.8)


async def spoken(ring: Arena, *messages: bytes, query: str = "") -> tuple[int | None, Talker]:
    """Send these messages as they are, then finish."""
    talker = await ring.join("raw", query)
    for message in messages:
        await talker.ws.send_bytes(message)
    await talker.tell("finish")
    return await talker.end(), talker


def shape(talker: Talker) -> list[tuple[object, ...]]:
    return [(final["text"], final["start_ms"], final["stop_ms"]) for final in talker.all("final")]


def left(ring: Arena) -> dict[str, object]:
    """The log line of the last session that left."""
    return [line for line in ring.log() if line["event"] == "session.left"][-1]


# --- row 9: splits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 161, 3_201])
async def test_row_9_a_split_never_shifts_the_samples(tmp_path: Path, size: int) -> None:
    settings = SessionSettings(resume_window_s=0.1, max_messages_per_s=100_000)
    async with arena(tmp_path, session=settings) as ring:
        _, whole = await spoken(ring, SPEECH)
        parts = [SPEECH[at : at + size] for at in range(0, len(SPEECH), size)]
        code, split = await spoken(ring, *parts)
        assert code == 1000
        assert shape(split) == shape(whole) != []


async def test_row_9_empty_messages_are_ignored(ring: Arena) -> None:
    talker = await ring.join("raw")
    for _ in range(3):
        await talker.ws.send_bytes(b"")
    await talker.tell("configure", sample_rate=8_000)
    assert (await talker.until("configured"))["options"]["sample_rate"] == 8_000, "an empty message is no audio yet"
    await talker.ws.send_bytes(voice(1.0, rate=8_000))
    await talker.ws.send_bytes(b"")
    assert await talker.finish() == 1000
    assert talker.seen[-1]["audio_ms"] == 1_000


async def test_row_9_a_dangling_byte_at_the_end_is_dropped_and_counted(ring: Arena) -> None:
    code, talker = await spoken(ring, SPEECH + b"\x7f")
    assert code == 1000
    assert talker.seen[-1]["audio_ms"] == len(SPEECH) // 32
    assert left(ring)["dangling_bytes"] == 1


# --- row 10: samples no microphone makes ----------------------------------------------------------------------------


def floats(samples: npt.ArrayLike) -> bytes:
    return np.asarray(samples, "<f4").tobytes()


@pytest.mark.parametrize(
    ("name", "value", "counted"),
    [("NaN", np.nan, 16_000), ("infinity", np.inf, 16_000), ("1e38", 1e38, 0), ("minus 1e38", -1e38, 0)],
)
async def test_row_10_impossible_floats_are_sanitised(ring: Arena, name: str, value: float, counted: int) -> None:
    speech = np.frombuffer(SPEECH, "<i2").astype(np.float32) / 32_768
    poison = np.full(RATE, value, np.float32)
    code, talker = await spoken(
        ring, floats(poison), floats(np.zeros(RATE, np.float32)), floats(speech), query="encoding=pcm_f32le"
    )
    assert code == 1000
    assert left(ring)["nonfinite_samples"] == counted
    heard = [final for final in talker.all("final") if final["start_ms"] >= 1_500]
    assert [final["text"] for final in heard] == ["w0 w1 w2 w3"], f"deaf after {name}"
    assert heard[0]["start_ms"] <= 2_100


@pytest.mark.parametrize("kind", ["square", "offset", "noise"])
async def test_row_10_the_detector_recovers_within_a_second(ring: Arena, kind: str) -> None:
    t = np.arange(2 * RATE)
    assault = {
        "square": np.sign(np.sin(t * 2 * np.pi * 440 / RATE)) * 32_767,
        "offset": np.full(2 * RATE, 30_000.0),
        "noise": np.random.default_rng(1).uniform(-32_767, 32_767, 2 * RATE),
    }[kind]
    code, talker = await spoken(ring, assault.astype("<i2").tobytes(), silence(1.0), SPEECH)
    assert code == 1000
    after = [final for final in talker.all("final") if final["start_ms"] >= 2_700]
    assert [final["text"] for final in after] == ["w0 w1 w2 w3"]


# --- row 11: what it is not -----------------------------------------------------------------------------------------


SAMPLES = "encoding=pcm_s16le"
"""The client insists: these are samples."""


def wav(rate: int, channels: int) -> bytes:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * channels * 2, channels * 2, 16)
    return b"RIFF\xff\xff\xff\xffWAVE" + form + b"data\xff\xff\xff\xff"


def a_law(samples: bytes) -> bytes:
    """G.711 A-law of these samples, by the book."""
    pcm = np.frombuffer(samples, "<i2").astype(np.int32) >> 3
    sign = np.where(pcm >= 0, 0xD5, 0x55)
    size = np.where(pcm >= 0, pcm, -pcm - 1)
    segment = np.maximum(0, np.floor(np.log2(np.maximum(size, 1))).astype(np.int32) - 4)
    mantissa = (size >> np.maximum(1, segment)) & 15
    return np.asarray((segment << 4 | mantissa) ^ sign, np.uint8).tobytes()


MIX = voice(3.0)
STEREO = np.repeat(np.frombuffer(MIX, "<i2"), 2).tobytes()
HALF = np.stack([np.frombuffer(MIX, "<i2"), np.zeros(len(MIX) // 2, "<i2")], axis=1).tobytes()


@pytest.mark.parametrize(
    ("name", "audio"),
    [
        ("channels", STEREO),
        ("channels", HALF),
        ("encoding", a_law(MIX)),
        ("encoding", floats(np.frombuffer(MIX, "<i2").astype(np.float32) / 32_768)),
        ("encoding", MIX[1:]),
    ],
    ids=["stereo as mono", "stereo with one silent channel", "A-law as PCM", "float as PCM", "half a sample late"],
)
async def test_row_11_mislabelled_audio_is_detected_and_warned_of(ring: Arena, name: str, audio: bytes) -> None:
    code, talker = await spoken(ring, *(audio[at : at + 640] for at in range(0, len(audio), 640)))
    assert code == 1000
    (warning,) = talker.all("warning")
    assert warning["code"] == "suspect_audio"
    assert f"'{name}'" in warning["message"]


@pytest.mark.parametrize("audio", [MIX, voice(3.0, level=0.9, seed=4), silence(3.0)], ids=["voice", "loud", "silence"])
async def test_right_audio_is_not_suspected(ring: Arena, audio: bytes) -> None:
    for size in (3_200, 641):
        _, talker = await spoken(ring, *(audio[at : at + size] for at in range(0, len(audio), size)))
        assert talker.all("warning") == []


async def test_row_11_a_wav_header_is_warned_of(ring: Arena) -> None:
    code, talker = await spoken(ring, wav(RATE, 1) + SPEECH, query=SAMPLES)
    assert code == 1000
    (warning,) = talker.all("warning")
    assert warning["code"] == "wav_header"
    assert "but the options say" not in warning["message"]
    assert shape(talker) != []


async def test_row_11_a_wav_header_that_contradicts_says_so(ring: Arena) -> None:
    head = wav(44_100, 2)
    _, talker = await spoken(ring, head[:7], head[7:30], head[30:], SPEECH, query=SAMPLES)
    (warning,) = talker.all("warning")
    assert "44100 Hz and 2 channels" in warning["message"]
    assert "16000 Hz and 1" in warning["message"]


@pytest.mark.parametrize(
    "head", [b"OggS\x00\x02", b"fLaC\x00\x00", b"ID3\x04\x00", b"\x1aE\xdf\xa3", b"\x00\x00\x00\x20ftypM4A ", b"FORM"]
)
async def test_row_11_a_compressed_file_called_samples_is_refused_at_its_start(ring: Arena, head: bytes) -> None:
    peer = await ring.raw(f"/transcription/stream/raw?{SAMPLES}")
    await peer.send(frame(BINARY, head + bytes(1_000)))
    end = await peer.end()
    assert (end.code, end.error) == (1003, "unsupported_media")
    assert "decode" in end.events[-1]["hint"]


@pytest.mark.parametrize(
    "query",
    [
        "sample_rate=1",
        "sample_rate=7999",
        "sample_rate=16001",
        "sample_rate=4000000000",
        "sample_rate=x",
        "sample_rate=",
        "channels=0",
        "channels=9",
        "channels=65535",
        "encoding=opus",
        "encoding=",
        "interim=perhaps",
        "language=klingon",
        "engine=none",
        "hangover_ms=NaN",
    ],
)
async def test_row_11_options_that_cannot_be_are_refused_before_the_upgrade(ring: Arena, query: str) -> None:
    peer = await ring.connect()
    answer = await peer.ask(handshake(f"/transcription/stream/raw?{query}", ring.port))
    assert answer.status == 400
    assert answer.code in ("bad_request", "unsupported_language")
    assert await ring.server.store.streams("raw") == (), "nothing was recorded"


async def test_row_11_a_changed_rate_in_mid_stream_is_warned_of(ring: Arena) -> None:
    talker = await ring.join("raw")
    await talker.send(voice(0.5))
    await talker.tell("configure", sample_rate=48_000)
    assert (await talker.until("configured"))["options"]["sample_rate"] == RATE
    assert [warning["code"] for warning in talker.all("warning")] == ["configure_late"]
    await talker.send(voice(0.5))
    assert await talker.finish() == 1000
    assert talker.seen[-1]["audio_ms"] == 1_000


# --- row 14: too fast, too slow, with gaps --------------------------------------------------------------------------


async def test_row_14_audio_faster_than_the_engine_waits_and_loses_nothing(tmp_path: Path) -> None:
    """75 s come as fast as the socket takes them, and the engine stands still.  Reading pauses before the 60 s of the
    ring are full, the peer is told, nobody is closed, and when the engine moves every word is there."""
    engine = CountingEngine()
    turns = asyncio.Semaphore(0)

    async def gate(final: bool) -> None:
        await turns.acquire()

    engine.gate = gate
    async with arena(tmp_path, engine=engine, session=SessionSettings(idle_timeout_s=1.0, resume_window_s=0.1)) as ring:
        talker = await ring.join("raw")
        one = voice(2.0) + silence(1.0)
        sending = asyncio.create_task(talker.send(one * 25, size=32_000))
        degraded = await talker.until("degraded")
        assert (degraded["reason"], degraded["active"]) == ("buffer", True)
        held = ring.server.streams._drivers
        (busy,) = [one for one in held.values() if one.key.interview == "raw"]
        # Longer than the idle timeout with the socket unread: the silence is ours.
        busy.machine.last_heard -= 10.0
        busy._ring_alarm()
        assert busy.machine.state.value == "live"
        assert busy._front.room < 6 * RATE
        for _ in range(10_000):
            turns.release()
        await talker.until("degraded", active=False)
        await sending
        assert await talker.finish() == 1000
        assert [final["segment"] for final in talker.all("final")] == list(range(25))
        assert talker.all("error") == []
        turns = asyncio.Semaphore(10_000)
        _, undisturbed = await spoken(ring, *(part for _ in range(25) for part in (one[:48_000], one[48_000:])))
        assert shape(talker) == shape(undisturbed)


async def test_row_14_a_pause_keeps_the_timeline(ring: Arena) -> None:
    """Positions count samples, not seconds: after a pause of a minute speech begins where the audio left off, and an
    anchor ties it to the wall again."""
    talker = await ring.join("raw")
    await talker.send(SPEECH)
    await talker.until("final")
    (busy,) = [one for one in ring.server.streams._drivers.values() if one.key.interview == "raw"]
    assert busy._arrived_at is not None
    busy._arrived_at -= 60.0
    await talker.tell("keepalive")
    await talker.send(SPEECH)
    assert await talker.finish() == 1000
    first, second = talker.all("final")
    assert (first["start_ms"], second["start_ms"]) == (0, 2_000 - 300)
    (stream,) = await ring.server.store.streams("raw")
    assert [anchor.position for anchor in stream.anchors] == [0, 2 * RATE]


async def test_row_14_slow_drops_of_audio_are_one_stream(ring: Arena) -> None:
    """Late and in pieces: each message alone waits on the loop until the one before is heard."""
    peer = await ring.raw()
    for at in range(0, len(SPEECH), 640):
        await peer.send(frame(BINARY, SPEECH[at : at + 640]))
        await asyncio.sleep(0)
    await peer.send(text({"type": "finish"}))
    end = await peer.end()
    assert end.code == 1000
    assert [event["text"] for event in end.events if event["type"] == "final"] == ["w0 w1 w2"]
