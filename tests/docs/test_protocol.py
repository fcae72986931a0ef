"""``docs/protocol.md`` is true: its examples are spoken here, and what it lists is what there is."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import wave
from pathlib import Path
from typing import Any

import pytest

from streamsrv import events
from streamsrv.commands import Options
from streamsrv.dialects.native import _WORDS, Greeting, NativeDialect
from streamsrv.facts import Word
from streamsrv.server.names import RESERVED
from tests.support.server import running
from tests.support.speech import silence, voice

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text("utf-8")
WORDS = (Word(text="and", start=5_440, stop=8_960, confidence=0.5, estimated=True),)


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found, f"no block '{language}'"
    return found[1]


def messages(language: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in block(language).splitlines()]


def dialect() -> NativeDialect:
    engine = {"name": "sphinx", "model": "en-us", "device": "cpu", "note": "US English only"}
    limits = {
        "binary_bytes": 1,
        "text_bytes": 1,
        "messages_per_s": 1,
        "idle_timeout_s": 1.0,
        "resume_window_s": 1.0,
        "max_stream_s": 1.0,
    }
    greeting = Greeting(session="s", stream="st", interview="i", resume_token="t", engine=engine, limits=limits)
    return NativeDialect(greeting, Options())


FINAL = events.Final(
    channel=0,
    utterance=0,
    segment=0,
    start=0,
    stop=1,
    text="and",
    words=(Word(text="and", start=0, stop=1, confidence=0.9),),
    cause="vad",
    endpoint=True,
    engine="sphinx",
)
SAID: dict[str, events.AnyEvent] = {
    "ready": events.Ready(
        epoch=1, resume_at=0, channels=(events.ChannelState(channel=0, kept_to=0, next_segment=0),), options=Options()
    ),
    "configured": events.Configured(options=Options()),
    "speech_started": events.SpeechStarted(channel=0, utterance=0, at=0),
    "partial": events.Partial(
        channel=0, utterance=0, segment=0, start=0, stop=1, text="and", stable_chars=0, words=WORDS, lag_ms=0
    ),
    "speech_stopped": events.SpeechStopped(channel=0, utterance=0, at=0),
    "final": FINAL,
    "utterance_end": events.UtteranceEnd(channel=0, utterance=0, last_word_stop=0),
    "ack": events.Ack(position=0),
    "degraded": events.Degraded(reason="buffer", active=True, message=""),
    "warning": events.Warned(code="unknown_message", message=""),
    "audio_gap": events.AudioGap(channel=0, start=0, stop=1),
    "goaway": events.GoAway(within_ms=1),
    "error": events.Failed(code="idle", message="", retryable=True),
    "closed": events.Closed(cause="finish", position=0, finals=0),
}


def test_the_page_shows_every_event_there_is() -> None:
    shown = {message["type"] for message in messages("json server")}
    assert shown == set(SAID)
    assert len(_WORDS) == len(SAID)


@pytest.mark.parametrize("shown", messages("json server"), ids=lambda message: str(message["type"]))
def test_an_event_has_the_keys_the_page_shows(shown: dict[str, Any]) -> None:
    (text,) = dialect().say(SAID[shown["type"]], 0.0)
    assert _keys(json.loads(text)) == _keys(shown)


def _keys(value: Any) -> Any:
    """The shape: keys, nested; the values do not matter."""
    if isinstance(value, dict):
        return {key: _keys(part) for key, part in value.items()}
    return [_keys(value[0])] if isinstance(value, list) and value else None


@pytest.mark.parametrize("sent", messages("json client"), ids=lambda message: str(message["type"]))
def test_a_command_of_the_page_is_understood(sent: dict[str, Any]) -> None:
    (command,) = dialect().hear(json.dumps(sent), 0.0)
    assert type(command).__name__.lower() == sent["type"]


def test_the_page_lists_every_option_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", PAGE, re.MULTILINE))
    assert rows.pop("resume") == "none"
    assert set(rows) == set(Options.__struct_fields__)
    for name, default in rows.items():
        if default.startswith("`"):
            assert default.strip("`") == str(getattr(Options(), name)).lower(), name


def test_the_page_names_the_reserved_ids() -> None:
    assert all(f"`{name}`" in PAGE for name in RESERVED)


async def test_the_python_client_of_the_page_reads_the_words(tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(block("python client"))
    with wave.open(str(tmp_path / "speech.wav"), "wb") as recording:
        recording.setparams((1, 2, 16_000, 0, "NONE", ""))
        recording.writeframes(silence(0.5) + voice(1.5) + silence(0.8))
    async with running(tmp_path / "data") as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(script),
            server.stream("from-the-page"),
            str(tmp_path / "speech.wav"),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 30)
    told = out.decode()
    assert process.returncode == 0
    assert "engine counting" in told
    assert re.search(r"[\r\n]w0 w1 w2 w3\n", told)
    assert "'closed'" in told
