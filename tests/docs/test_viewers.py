"""What ``docs/protocol.md`` shows of viewers, lists and recordings is what the server says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from streamsrv import events
from streamsrv.commands import Options
from streamsrv.dialects.viewer import KnownStream, ViewerDialect
from streamsrv.server import transcripts, viewer
from tests.server.test_recordings import recorded, the_one
from tests.support.server import running

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text("utf-8")


def shown(language: str) -> list[dict[str, Any]]:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found, f"no block '{language}'"
    return [json.loads(line) for line in found[1].splitlines()]


def keys(value: Any) -> Any:
    """The shape: keys, nested; the values do not matter."""
    if isinstance(value, dict):
        return {key: keys(part) for key, part in value.items()}
    return [keys(value[0])] if isinstance(value, list) and value else None


def said() -> dict[str, Any]:
    dialect = ViewerDialect("s", "i")
    stream = KnownStream(stream="st", order=1, speaker=None, language=None, channels=1, status="live", started_utc_ms=0)
    messages = [
        dialect.ready(None, (stream,)),
        dialect.say("st", events.Configured(options=Options())),
        dialect.say("st", events.StreamOver()),
    ]
    return {kind: json.loads(text) for kind, text in messages}


@pytest.mark.parametrize("message", shown("json viewer"), ids=lambda message: str(message["type"]))
def test_a_viewers_message_has_the_keys_the_page_shows(message: dict[str, Any]) -> None:
    assert keys(said()[message["type"]]) == keys(message)


def test_the_page_shows_every_message_of_viewers_alone() -> None:
    assert {message["type"] for message in shown("json viewer")} == set(said())


async def test_a_list_of_recordings_has_the_keys_the_page_shows(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        await recorded(server)
        one, link = await the_one(server)
    (listed,) = shown("json recordings")
    assert keys({"interview": "talk", "recordings": [one]}) == keys(listed)
    pattern = listed["recordings"][0]["links"]["flac"].replace("test-interview", r"talk").replace("st-9f2c", r"[\w-]+")
    assert re.fullmatch(pattern, link)


def test_the_page_tells_the_bounds() -> None:
    assert f"(1 to {transcripts.MAX_LISTED}; 50)" in PAGE
    assert f"more than {viewer.MESSAGES_PER_S} messages a second" in PAGE
    for status in transcripts.STATUSES:
        assert f"`{status}`" in PAGE
