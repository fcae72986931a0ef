"""The published schema: what is sent fits it, it does not drift, and old consumers are never broken."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamsrv.commands import Options
from streamsrv.facts import Word
from streamsrv.runtime.handoff.telling import Teller
from streamsrv.sinks import events
from streamsrv.stores.base import Anchor, StoredFinal, Stream
from streamsrv.stores.handoff import Completion, Deletion, Handoff
from tests.sinks.compatibility import breaks
from tests.stores.builders import NOW_MS, final

DOCS = Path(__file__).parents[2] / "docs"
PUBLISHED = sorted((DOCS / "events").glob("*.json"), key=lambda path: [int(part) for part in path.stem.split(".")])
STREAM = Stream(
    id="st-1",
    interview="talk",
    order=1,
    status="ended",
    options=Options(speaker="Zoë", language="en-US"),
    engine="scripted",
    epochs=(),
    anchors=(Anchor(position=0, utc_ms=NOW_MS), Anchor(position=160_000, utc_ms=NOW_MS + 70_000)),
    restarts=(0,),
    started_ms=NOW_MS,
)


def handoff(what: StoredFinal | Completion | Deletion) -> Handoff:
    return Handoff(place=7, stored_ms=NOW_MS + 5, what=what)


def kept(segment: int, **changes: object) -> StoredFinal:
    return StoredFinal(stream="st-1", epoch=2, final=msgspec.structs.replace(final(segment), **changes))


# --- what is told -------------------------------------------------------------------------------------------------


def test_a_final_as_it_is_told() -> None:
    words = (Word(text="héllo", start=168_000, stop=172_000, confidence=0.25, estimated=True),)
    one = kept(10, words=words, text="héllo", start=168_000, stop=176_000)
    record = Teller("talk", [STREAM]).final(handoff(one), one)
    assert (record.interview, record.id, record.kind) == ("talk", "talk/st-1/2/0/10", "transcript.final")
    assert json.loads(record.body) == {
        "type": "transcript.final",
        "version": events.VERSION,
        "id": "talk/st-1/2/0/10",
        "interview": "talk",
        "stored_utc_ms": NOW_MS + 5,
        "stream": "st-1",
        "epoch": 2,
        "channel": 0,
        "segment": 10,
        "utterance": 10,
        "speaker": "Zoë",
        "start_ms": 10_500,
        "stop_ms": 11_000,
        "start_utc_ms": NOW_MS + 70_500,
        "stop_utc_ms": NOW_MS + 71_000,
        "text": "héllo",
        "words": [
            {
                "text": "héllo",
                "start_ms": 10_500,
                "stop_ms": 10_750,
                "confidence": 0.25,
                "estimated": True,
                "glued": False,
            }
        ],
        "language": None,
        "cause": "vad",
        "endpoint": True,
        "engine": "scripted",
        "failed": False,
    }


def test_the_same_handoff_is_told_the_same_way() -> None:
    one = kept(3)
    later = msgspec.structs.replace(STREAM, anchors=(*STREAM.anchors, Anchor(position=999_999, utc_ms=NOW_MS + 10**6)))
    assert Teller("talk", [STREAM]).final(handoff(one), one) == Teller("talk", [later]).final(handoff(one), one)


def test_a_completion_counts_the_finals_of_each_stream() -> None:
    other = msgspec.structs.replace(STREAM, id="st-2", options=Options())
    done = Completion(revision=3, started_ms=NOW_MS, ended_ms=NOW_MS + 9)
    record = Teller("talk", [STREAM, other]).completed(handoff(done), done, [kept(0), kept(1)])
    told = json.loads(record.body)
    assert record.id == f"talk/completed/{NOW_MS}/3"
    assert (told["type"], told["revision"], told["ended_utc_ms"]) == ("transcript.completed", 3, NOW_MS + 9)
    assert told["streams"] == [
        {"stream": "st-1", "speaker": "Zoë", "finals": 2},
        {"stream": "st-2", "speaker": None, "finals": 0},
    ]


def test_a_deletion_names_the_streams() -> None:
    gone = Deletion(streams=("st-1", "st-2"), deleted_ms=NOW_MS + 3)
    record = Teller("talk", []).deleted(handoff(gone), gone)
    assert record.id == f"talk/deleted/{NOW_MS + 3}"
    assert json.loads(record.body)["streams"] == ["st-1", "st-2"]


def test_ids_differ_where_they_must() -> None:
    teller = Teller("talk", [STREAM])
    finals = [kept(1), kept(2), kept(1, channel=1), StoredFinal(stream="st-1", epoch=3, final=final(1))]
    dones = [Completion(revision=r, started_ms=s, ended_ms=1) for r, s in ((1, 5), (2, 5), (1, 6))]
    ids = [teller.final(handoff(one), one).id for one in finals]
    ids += [teller.completed(handoff(one), one, ()).id for one in dones]
    assert len(set(ids)) == len(ids)


# --- the published description --------------------------------------------------------------------------------------


def test_the_newest_page_describes_what_is_sent() -> None:
    """After a change: raise VERSION, then run scripts/event-schema."""
    assert PUBLISHED[-1].stem == events.VERSION
    assert json.loads(PUBLISHED[-1].read_text("utf-8")) == json.loads(json.dumps(events.schema()))


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_consumers_of_every_published_version_are_kept(path: Path) -> None:
    assert breaks(json.loads(path.read_text("utf-8")), events.schema()) == []


def schema() -> dict[str, Any]:
    return copy.deepcopy(events.schema())


def fields(made: dict[str, Any], of: str = "TranscriptFinal") -> dict[str, Any]:
    found: dict[str, Any] = made["$defs"][of]
    return found


TEXT = {"type": "string"}


def drop(made: dict[str, Any]) -> None:
    del fields(made)["properties"]["speaker"]
    fields(made)["required"].remove("speaker")


def rename(made: dict[str, Any]) -> None:
    fields(made)["properties"]["who"] = fields(made)["properties"].pop("speaker")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (drop, "transcript.final',).speaker: is gone"),
        (rename, "speaker: is gone"),
        (lambda made: fields(made)["required"].remove("text"), "text: was always there"),
        (lambda made: fields(made)["properties"].update(text={"type": "integer"}), "text: may be integer now"),
        (lambda made: fields(made)["properties"].update(text={"anyOf": [TEXT, {"type": "null"}]}), "may be null"),
        (lambda made: fields(made)["properties"]["cause"]["enum"].append("magic"), "cause: takes values"),
        (lambda made: fields(made)["properties"]["epoch"].pop("minimum"), "epoch: minimum is looser"),
        (lambda made: fields(made)["properties"]["version"].update(pattern=".*"), "version: has another pattern"),
        (lambda made: fields(made, "EventWord")["properties"]["confidence"].update(maximum=100), "maximum is looser"),
        (lambda made: fields(made, "EventWord")["required"].remove("glued"), "words[].glued: was always there"),
        (lambda made: fields(made, "TranscriptDeleted")["properties"]["type"].update(enum=["gone"]), "is gone"),
    ],
)  # fmt: skip
def test_changes_that_would_break_consumers_are_found(change: Any, told: str) -> None:
    made = schema()
    change(made)
    assert any(told in one for one in breaks(events.schema(), made)), breaks(events.schema(), made)


def test_additions_break_nobody() -> None:
    made = schema()
    fields(made)["properties"]["mood"] = {"type": "string"}
    fields(made)["required"].append("mood")
    fields(made)["properties"]["cause"]["enum"].remove("length")
    made["$defs"]["More"] = {
        "type": "object",
        "properties": {"type": {"enum": ["transcript.more"]}},
        "required": ["type"],
    }
    made["anyOf"].append({"$ref": "#/$defs/More"})
    assert breaks(events.schema(), made) == []


def test_the_page_lists_every_event_and_field() -> None:
    page = (DOCS / "events.md").read_text("utf-8")
    for kind in msgspec.inspect.multi_type_info(
        [events.TranscriptFinal, events.TranscriptCompleted, events.TranscriptDeleted]
    ):
        assert isinstance(kind, msgspec.inspect.StructType)
        assert f"`{kind.tag}`" in page
        for part in kind.fields:
            assert f'"{part.encode_name}"' in page, f"{kind.tag}.{part.encode_name}"


def test_the_pages_examples_are_events() -> None:
    page = (DOCS / "events.md").read_text("utf-8")
    told = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert {type(events.decode(text)) for text in told} == {
        events.TranscriptFinal,
        events.TranscriptCompleted,
        events.TranscriptDeleted,
    }
