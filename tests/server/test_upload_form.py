"""What the form of an upload may say, and what is told of what it may not."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streamsrv.facts import RATE_HZ
from streamsrv.runtime.settings import ArchiveSettings
from streamsrv.runtime.tracks import Piece, Track
from streamsrv.server.upload import MAX_QUERY
from tests.server.test_upload import TALK, Desk, desk
from tests.support.recordings import interleaved, wav
from tests.support.speech import silence, voice


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path) as one:
        yield one


# --- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("langauge", "language"),
        ("Speaker", "speaker"),
        ("multi_channel", "multichannel"),
        ("recording", "record"),
        ("files", "file"),
        ("hangover-ms", "hangover_ms"),
    ],
)
async def test_a_mistyped_part_is_refused_and_the_known_one_named(here: Desk, name: str, meant: str) -> None:
    fields = {name: "x"}
    status, body, location = await here.send(wav(TALK), first=(), **fields)
    assert (status, body["error"]["code"], location) == (400, "bad_request", None)
    assert f"'{name}'" in body["error"]["message"]
    assert f"'{meant}'" in body["error"]["hint"]
    assert here.files() == []


@pytest.mark.parametrize("name", ["interview_id", "InterviewID", "interviewld"])
async def test_so_is_the_interview_s(here: Desk, name: str) -> None:
    fields = {name: "mine"}
    status, body, _ = await here.send(wav(TALK), first=(name,), **fields)
    assert (status, body["error"]["hint"]) == (400, "did you mean 'interviewId'?")


async def test_parts_that_mean_nothing_here_are_told_with_the_transcript(here: Desk) -> None:
    status, body, location = await here.send(wav(TALK), title="mine", encoding="pcm_s16le", interim="false")
    assert status == 200
    assert body["warnings"] == ["parts of the form that mean nothing here, ignored: 'title', 'encoding', 'interim'"]
    assert (await here.ask(location or ""))[1]["warnings"] == body["warnings"]
    assert "warnings" not in (await here.ask("/transcription/talk"))[1]


async def test_they_are_told_when_nobody_waits_too(here: Desk) -> None:
    status, body, location = await here.send(wav(TALK), wait="0", title="mine")
    assert (status, body["warnings"]) == (202, ["parts of the form that mean nothing here, ignored: 'title'"])
    assert (await here.until(location or "", "done"))["warnings"] == body["warnings"]


async def test_what_is_told_of_a_name_is_short_and_harmless(here: Desk) -> None:
    fields = {"\N{RIGHT-TO-LEFT OVERRIDE}" + "z" * 300: "mine"} | {f"x{n}": "" for n in range(20)}
    _, body, _ = await here.send(wav(TALK), first=(), **fields)
    (warning,) = body["warnings"]
    assert warning.startswith(f"parts of the form that mean nothing here, ignored: '{'z' * 39}', 'x0', ")
    assert len(warning) < 150


@pytest.mark.parametrize(
    ("query", "hint"),
    [("wiat=5", "did you mean 'wait'?"), ("language=en", "use -F language=..."), ("lnaguage=en", "'language'?")],
)
async def test_a_query_that_would_have_no_effect_is_refused(here: Desk, query: str, hint: str) -> None:
    status, body, _ = await here.send(wav(TALK), wait=f"20&{query}")
    assert status == 400
    assert hint in body["error"]["hint"]


async def test_an_unknown_query_is_told(here: Desk) -> None:
    status, body, _ = await here.send(wav(TALK), wait="20&utm=1")
    assert (status, body["warnings"]) == (200, ["options of the query that mean nothing here, ignored: 'utm'"])


async def test_a_query_of_very_many_options_is_not_gone_through(here: Desk) -> None:
    """Each is compared with all that are known, on the event loop."""
    query = "&".join(f"w{number}a" for number in range(MAX_QUERY))
    status, body, _ = await here.send(wav(TALK), wait=f"20&{query}")
    assert (status, body["error"]["message"]) == (400, f"the query has more than {MAX_QUERY} options")


# --- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"), [("record", "perhaps"), ("multichannel", "2"), ("hangover_ms", "5"), ("channels", "99")]
)
async def test_a_bad_value_is_refused_by_its_name(here: Desk, name: str, value: str) -> None:
    fields = {name: value}
    status, body, _ = await here.send(wav(TALK), first=(), **fields)
    assert (status, f"'{name}'" in body["error"]["message"]) == (400, True)
    assert here.files() == []


async def test_what_decides_where_speech_is_cut_is_as_for_a_microphone(here: Desk) -> None:
    _, body, _ = await here.send(wav(TALK), hangover_ms="1500")
    assert len(body["segments"]) == 1, "0.8 s of silence do not end an utterance then"


async def test_channels_of_the_form_are_compared_with_the_file_s(here: Desk) -> None:
    stereo = wav(interleaved(TALK, TALK), channels=2)
    _, body, _ = await here.send(stereo, channels="2", multichannel="true", interviewId="right")
    assert body["warnings"] == []
    assert {line["channel"] for line in body["segments"]} == {0, 1}
    _, body, _ = await here.send(wav(TALK), channels="2", sample_rate="8000", interviewId="wrong")
    assert body["warnings"] == [
        "channels=2 was asked for; the file has 1",
        "sample_rate=8000 was asked for; the file has 16000",
    ]


# --- recording ----------------------------------------------------------------------------------------------------


async def test_a_file_can_be_kept_beside_its_transcript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample for sample, however much faster than a microphone it comes, and however slow the disk is."""
    write = Track.write

    def slowly(track: Track, piece: Piece) -> bool:
        time.sleep(len(piece.samples) / 2 / RATE_HZ / 60)  # 60 times real time; the engine is far faster
        return write(track, piece)

    monkeypatch.setattr(Track, "write", slowly)
    left = b"".join(silence(1.0) + voice(1.0, seed=n) for n in range(30))
    right = left[::-1][: len(left)]
    async with desk(tmp_path) as here:
        status, body, _ = await here.send(wav(interleaved(left, right), channels=2), record="true", multichannel="true")
        assert (status, body["warnings"]) == (200, [])
        listed = (await here.ask("/transcription/talk/recordings"))[1]["recordings"]
        assert [(one["channel"], one["seconds"], one["complete"]) for one in listed] == [
            (0, 60.0, True),
            (1, 60.0, True),
        ]
        for one, wanted in zip(listed, (left, right), strict=True):
            async with here.http.get(here.server.http + one["links"]["flac"]) as answer:
                (tmp_path / "got.flac").write_bytes(await answer.read())
            samples, rate = soundfile.read(tmp_path / "got.flac", dtype="int16")
            assert rate == RATE_HZ
            assert np.array_equal(samples, np.frombuffer(wanted, "<i2"))
        async with here.http.delete(f"{here.server.http}/transcription/talk") as answer:
            assert answer.status == 204
        assert [path for path in (tmp_path / "recordings").rglob("*") if path.is_file()] == []


async def test_a_server_that_does_not_record_refuses_a_file_too(tmp_path: Path) -> None:
    async with desk(tmp_path, archive=ArchiveSettings(allow_recording=False)) as here:
        status, body, _ = await here.send(wav(TALK), record="true")
        assert (status, body["error"]["code"]) == (403, "forbidden")
        assert here.files() == []


async def test_a_recording_that_ends_early_is_told_with_the_job(tmp_path: Path) -> None:
    async with desk(tmp_path, archive=ArchiveSettings(max_recording_s=2)) as here:
        status, body, _ = await here.send(wav(TALK), record="true")
        assert status == 200
        assert len(body["segments"]) == 2
        assert ["longest length" in warning for warning in body["warnings"]] == [True]
