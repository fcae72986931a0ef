"""The native protocol's translator alone: words in, commands out; events in, words out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsrv import commands, events
from streamsrv.commands import Options
from streamsrv.dialects.native import (
    BINARY_BYTES,
    TEXT_BYTES,
    Greeting,
    NativeDialect,
    merge_options,
    ms,
    unknown_options,
)
from streamsrv.errors import BadMessage, BadRequest, MessageTooBig, WrongMessageKind
from streamsrv.facts import Word

GREETING = Greeting(
    session="s-1", stream="st-1", interview="i", resume_token="t", engine={"name": "e"}, limits={"x": 1}
)


def dialect(**options: Any) -> NativeDialect:
    return NativeDialect(GREETING, Options(**options))


def hear(message: str | bytes, **options: Any) -> list[commands.AnyCommand]:
    return dialect(**options).hear(message, 0.0)


def say(event: events.AnyEvent, **options: Any) -> dict[str, Any]:
    (message,) = dialect(**options).say(event, 0.0)
    told: dict[str, Any] = json.loads(message)
    return told


# --- hearing --------------------------------------------------------------------------------------------------------


def test_commands() -> None:
    assert hear(b"\x01\x02") == [commands.Audio(data=b"\x01\x02")]
    assert hear('{"type":"flush"}') == [commands.Flush()]
    assert hear(' {"type" : "finish", "more": [1]} ') == [commands.Finish()]
    assert hear('{"type":"keepalive"}') == [commands.KeepAlive()]
    assert hear('{"type":"configure"}') == [commands.Configure(options=Options())]


def test_configure_changes_what_it_names_and_keeps_the_rest() -> None:
    (command,) = hear('{"type":"configure","sample_rate":8000,"interim":false}', encoding="mulaw", channels=2)
    assert isinstance(command, commands.Configure)
    assert command.options == Options(encoding="mulaw", channels=2, sample_rate=8_000, interim=False)


def test_what_was_configured_is_the_base_of_the_next() -> None:
    translator = dialect()
    translator.say(events.Configured(options=Options(sample_rate=8_000)), 0.0)
    (command,) = translator.hear('{"type":"configure","channels":2}', 0.0)
    assert isinstance(command, commands.Configure)
    assert command.options == Options(sample_rate=8_000, channels=2)


def test_unknown_words_become_warnings_of_bounded_length() -> None:
    (ignored,) = hear(json.dumps({"type": "x" * 5_000}))
    assert isinstance(ignored, commands.Ignore)
    assert ignored.code == "unknown_message"
    assert len(ignored.what) < 120
    configure, ignored = hear(json.dumps({"type": "configure"} | {f"{'n' * 100}{n}": 1 for n in range(50)}))
    assert isinstance(configure, commands.Configure)
    assert isinstance(ignored, commands.Ignore)
    assert ignored.code == "unknown_option"
    assert len(ignored.what) < 500
    assert unknown_options([]) == []


@pytest.mark.parametrize(
    "message", ["", "x", "[]", "1", "null", '"finish"', "{}", '{"type":1}', '{"a":1,"a":1,"type":"flush"}']
)
def test_what_is_no_command_is_a_bad_message(message: str) -> None:
    with pytest.raises(BadMessage):
        hear(message)


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda data: data.decode("latin-1")))
def test_whatever_comes_is_a_command_or_an_error_of_ours(message: str) -> None:
    try:
        heard = hear(message)
    except (BadMessage, BadRequest):
        return
    assert heard


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["type", *Options.__struct_fields__]), JSON | st.just("configure"), max_size=5))
def test_whatever_is_configured_is_in_range_or_refused(body: dict[str, Any]) -> None:
    try:
        heard = hear(json.dumps({"type": "configure"} | {k: v for k, v in body.items() if k != "type"}))
    except (BadMessage, BadRequest):
        return
    (command,) = heard
    assert isinstance(command, commands.Configure)
    assert 8_000 <= command.options.sample_rate <= 192_000
    assert 1 <= command.options.channels <= 8


@pytest.mark.parametrize("letter", ["x", "é", "語", "😀"])
def test_texts_are_limited_in_bytes(letter: str) -> None:
    size = len(letter.encode())
    frame = '{"type":"keepalive","x":""}'
    room = TEXT_BYTES - len(frame)
    fits = frame.replace('""', f'"{letter * (room // size)}"')
    assert hear(fits) == [commands.KeepAlive()]
    with pytest.raises(MessageTooBig):
        hear(fits.replace(letter, letter * 2, 1) + " " * size)


@pytest.mark.parametrize("message", [b'{"type":"finish"}', b' \n{ "type" :1', b'{"type":"keepalive"'])
def test_commands_do_not_come_as_audio(message: bytes) -> None:
    with pytest.raises(WrongMessageKind):
        hear(message)


@pytest.mark.parametrize("audio", [b"", b"{", b" ", b'{"typ', b"{}" * 80, b"  " * 80, b'\x00{"type":'])
def test_audio_may_look_odd(audio: bytes) -> None:
    assert hear(audio) == [commands.Audio(data=audio)]


def test_limits_are_the_protocol_s() -> None:
    assert (BINARY_BYTES, TEXT_BYTES) == (2**20, 2**14)
    assert (NativeDialect.binary_bytes, NativeDialect.text_bytes) == (BINARY_BYTES, TEXT_BYTES)


# --- options of a query ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ({}, Options()),
        ({"sample_rate": "8000"}, Options(sample_rate=8_000)),
        ({"interim": "FALSE"}, Options(interim=False)),
        ({"interim": "no", "multichannel": "on"}, Options(interim=False, multichannel=True)),
        ({"speaker": "17"}, Options(speaker="17")),
        ({"language": "en-US"}, Options(language="en-US")),
    ],
)
def test_a_query_is_text(query: dict[str, str], options: Options) -> None:
    assert merge_options(Options(), query, strict=False) == (options, [])


@pytest.mark.parametrize("name", [name for name in Options.__struct_fields__ if name != "speaker"])
def test_an_error_names_the_option(name: str) -> None:
    with pytest.raises(BadRequest) as refused:
        merge_options(Options(), {name: "!" * 5_000}, strict=False)
    assert f"'{name}'" in refused.value.message
    assert len(refused.value.message) < 400


def test_unknown_names_are_told_apart() -> None:
    assert merge_options(Options(), {"a": "1", "channels": "2"}, strict=False) == (Options(channels=2), ["a"])


# --- saying ---------------------------------------------------------------------------------------------------------


def test_every_message_has_its_head_and_counts() -> None:
    translator = dialect()
    told = [json.loads(translator.say(events.GoAway(within_ms=n), 0.0)[0]) for n in range(3)]
    assert [one["seq"] for one in told] == [0, 1, 2]
    assert told[0] == {"type": "goaway", "session": "s-1", "stream": "st-1", "seq": 0, "within_ms": 0}


@pytest.mark.parametrize(("rate", "samples"), [(8_000, 960), (16_000, 1_920), (48_000, 5_760), (11_025, 1_323)])
def test_samples_are_the_client_s_own_and_exact_at_restart_points(rate: int, samples: int) -> None:
    assert say(events.Ack(position=1_920), sample_rate=rate)["samples"] == samples
    assert say(events.Ack(position=1_920 * 30_000), sample_rate=rate)["samples"] == samples * 30_000


@given(st.integers(0, 16_000 * 86_400), st.sampled_from([8_000, 11_025, 22_050, 44_100, 192_000]))
def test_rounding_never_tells_to_forget_too_little_or_too_much(position: int, rate: int) -> None:
    samples = dialect(sample_rate=rate).samples(position)
    assert (samples - 1) * 16_000 < position * rate <= samples * 16_000


@given(st.integers(0, 2**50))
def test_milliseconds_are_the_nearest(position: int) -> None:
    assert abs(ms(position) * 16 - position) <= 8


def test_words_say_when_their_confidence_is_a_guess() -> None:
    word = Word(text="hé", start=160, stop=320, confidence=0.123456, estimated=True, glued=True)
    final = events.Final(
        channel=0,
        utterance=1,
        segment=2,
        start=0,
        stop=320,
        text="hé",
        words=(word,),
        cause="vad",
        endpoint=True,
        engine="e",
    )
    told = say(final)
    assert told["words"] == [
        {"text": "hé", "start_ms": 10, "stop_ms": 20, "confidence": 0.123, "estimated": True, "glued": True}
    ]
    assert told["durable"] == "store"
    assert "failed" not in told


def test_ready_tells_where_to_go_on() -> None:
    ready = events.Ready(
        epoch=2,
        resume_at=16_000,
        channels=(events.ChannelState(channel=0, kept_to=32_000, next_segment=3),),
        options=Options(sample_rate=8_000),
    )
    told = say(ready, sample_rate=8_000)
    assert (told["epoch"], told["resume_at"]) == (2, 8_000)
    assert told["channels"] == [{"channel": 0, "kept_to": 16_000, "next_segment": 3}]
    assert told["options"]["sample_rate"] == 8_000


@pytest.mark.parametrize("after", [None, 0, 5_000])
def test_an_error_says_when_to_come_back_where_that_is_known(after: int | None) -> None:
    told = say(events.Failed(code="c", message="m", hint="h", retryable=True, retry_after_ms=after))
    assert told.get("retry_after_ms") == after
    assert ("retry_after_ms" in told) is (after is not None)
