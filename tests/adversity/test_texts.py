"""Text messages that are not what the protocol speaks (rows 12, 13, 24)."""

from __future__ import annotations

import json

import pytest

from streamsrv.dialects.native import TEXT_BYTES
from tests.adversity.arena import Arena
from tests.support.raw import BINARY, End, frame, text


async def told(ring: Arena, message: str) -> End:
    """Send one text message and finish; how the session ended."""
    peer = await ring.raw()
    await peer.send(text(message) + text({"type": "finish"}))
    end = await peer.end()
    return end


# --- row 12: one kind of message where the other belongs ------------------------------------------------------------


@pytest.mark.parametrize(
    "message", ["hello", "", " ", "null", "17", "[]", '"finish"', "{}", '{"type":null}', '{"type":7}']
)
async def test_row_12_text_that_is_no_command_closes_with_1007(ring: Arena, message: str) -> None:
    end = await told(ring, message)
    assert (end.code, end.error) == (1007, "bad_message")
    assert end.events[-1]["hint"]


@pytest.mark.parametrize("message", [b'{"type":"keepalive"}', b' { "type" : "finish" }', b'{"type": "KeepAlive"}'])
async def test_row_12_a_command_in_a_binary_message_is_no_audio(ring: Arena, message: bytes) -> None:
    peer = await ring.raw()
    await peer.send(frame(BINARY, message))
    end = await peer.end()
    assert (end.code, end.error) == (1003, "wrong_message_kind")


async def test_row_12_unknown_types_are_ignored_with_a_warning(ring: Arena) -> None:
    end = await told(ring, '{"type":"KeepAlive"}')
    assert end.code == 1000
    (warning,) = [event for event in end.events if event["type"] == "warning"]
    assert warning["code"] == "unknown_message"
    assert "KeepAlive" in warning["message"]


# --- row 13: JSON that breaks parsers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        pytest.param('{"type":"keepalive","x":' + "[" * 8_000 + "]" * 8_000 + "}", id="deep lists"),
        pytest.param('{"a":' * 2_500 + "1" + "}" * 2_500, id="deep objects"),
        pytest.param('{"type":"keepalive","x":' + "[" * 16_000, id="deep and open"),
        pytest.param('{"type":"keepalive","x":NaN}', id="NaN"),
        pytest.param('{"type":"keepalive","x":-Infinity}', id="Infinity"),
        pytest.param('{"type":"keepalive","x":1e999}', id="1e999"),
        pytest.param('{"type":"keepalive","x":"\\ud800"}', id="lone surrogate"),
        pytest.param('{"type":"keepalive","\\udfff":1}', id="lone surrogate in a name"),
        pytest.param('{"type":"keepalive","type":"finish"}', id="a name twice"),
        pytest.param('{"type":"keepalive","x":{"a":1,"a":2}}', id="a name twice, inside"),
        pytest.param('\ufeff{"type":"keepalive"}', id="byte order mark"),
        pytest.param('{"type":"keepalive"}{"type":"finish"}', id="two objects"),
        pytest.param("{'type':'keepalive'}", id="single quotes"),
        pytest.param('{"type":"keepalive",}', id="trailing comma"),
        pytest.param('{"type":"keepalive","x":' + "9" * 16_000 + "}", id="16 000 digits"),
        pytest.param('{"type":"keep\x00alive"}', id="control character"),
    ],
)
async def test_row_13_bad_json_closes_with_1007(ring: Arena, message: str) -> None:
    assert len(message) <= TEXT_BYTES
    end = await told(ring, message)
    assert (end.code, end.error) == (1007, "bad_message")


@pytest.mark.parametrize(
    "message",
    [
        pytest.param('{"type":"keepalive","x":' + "[" * 100_000 + "]" * 100_000 + "}", id="depth 100 000"),
        pytest.param('{"type":"keepalive","x":' + "9" * 1_000_000 + "}", id="a million digits"),
        pytest.param(json.dumps({"type": "keepalive"} | {f"k{n}": n for n in range(60_000)}), id="60 000 names"),
    ],
)
async def test_row_13_giants_are_refused_unread(ring: Arena, message: str) -> None:
    end = await told(ring, message)
    assert (end.code, end.error) == (1009, "message_too_big")


@pytest.mark.parametrize(
    "message",
    [
        pytest.param('{"type":"keepalive","x":' + "9" * 4_000 + "}", id="4 000 digits"),
        pytest.param(json.dumps({"type": "keepalive"} | {f"k{n}": n for n in range(1_000)}), id="a thousand names"),
    ],
)
async def test_what_is_merely_odd_is_ignored(ring: Arena, message: str) -> None:
    assert (await told(ring, message)).code == 1000


# --- row 24: operators and special names ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        '{"type":"configure","speaker":{"$ne":null}}',
        '{"type":"configure","language":{"$gt":""}}',
        '{"type":"configure","engine":["sphinx"]}',
        '{"type":"configure","sample_rate":{"$gt":0}}',
        '{"type":"configure","sample_rate":"16000"}',
        '{"type":"configure","interim":1}',
        '{"type":"configure","channels":1.5}',
        '{"type":"configure","channels":' + "9" * 400 + "}",
        '{"type":"configure","sample_rate":7999}',
        '{"type":"configure","longest_ms":0}',
        '{"type":"configure","language":"en; drop"}',
        '{"type":"configure","speaker":"' + "x" * 129 + '"}',
        '{"type":"configure","engine":"__class__"}',
        '{"type":"configure","engine":"other"}',
    ],
)
async def test_row_24_options_take_their_own_type_and_range_only(ring: Arena, message: str) -> None:
    end = await told(ring, message)
    assert (end.code, end.error) == (1008, "bad_request")
    name = next(name for name in json.loads(message) if name != "type")
    assert f"'{name}'" in end.events[-1]["message"]


@pytest.mark.parametrize("name", ["$where", "a.b", "__proto__", "constructor", "_id", "a\u0000b", "options"])
async def test_row_24_names_of_clients_go_nowhere(ring: Arena, name: str) -> None:
    end = await told(ring, json.dumps({"type": "configure", "sample_rate": 8_000, name: {"$set": 1}}))
    assert end.code == 1000
    (configured,) = [event for event in end.events if event["type"] == "configured"]
    assert name not in configured["options"]
    assert configured["options"]["sample_rate"] == 8_000
    (stream,) = await ring.server.store.streams("raw")
    assert stream.options.sample_rate == 8_000


async def test_row_24_a_type_is_a_text(ring: Arena) -> None:
    end = await told(ring, '{"type":{"$gt":""}}')
    assert (end.code, end.error) == (1007, "bad_message")


async def test_an_answer_does_not_repeat_a_long_value(ring: Arena) -> None:
    end = await told(ring, json.dumps({"type": "configure", "encoding": "x" * 10_000}))
    assert (end.code, end.error) == (1008, "bad_request")
    assert len(end.events[-1]["message"]) < 300
