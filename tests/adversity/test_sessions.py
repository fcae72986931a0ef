"""Sessions at their limits: too many streams, resumed elsewhere, too long, drained; and faults of our own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from streamsrv.errors import EngineFailed, EngineLost
from streamsrv.runtime.settings import SessionSettings
from streamsrv.server.speaker import Speaker
from tests.adversity.arena import UTTERANCE, Arena, Talker, arena, eventually
from tests.support.engines import CountingEngine
from tests.support.raw import BINARY, frame, handshake
from tests.support.speech import silence, voice

LASTING = SessionSettings(resume_window_s=600.0)


async def refused(ring: Arena, interview: str, query: str = "") -> tuple[int, str]:
    """A handshake that fails: status and error code."""
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    url = f"{ring.server.http}/transcription/stream/{interview}?{query}"
    async with ring.http.get(url, headers=headers) as answer:
        return answer.status, (await answer.json())["error"]["code"]


# --- rows 16 and 17: the same interview, the same stream ------------------------------------------------------------


async def test_the_ninth_stream_of_an_interview_is_refused_with_409(ring: Arena) -> None:
    talkers = [await ring.join("crowd") for _ in range(8)]
    assert await refused(ring, "crowd") == (409, "conflict")
    other = await ring.join("elsewhere")
    assert await talkers[0].finish() == 1000
    assert await (await ring.join("crowd")).finish() == 1000, "there is room again"
    for talker in (*talkers[1:], other):
        assert await talker.finish() == 1000


async def test_ten_at_once_are_eight(ring: Arena) -> None:
    async def attempt() -> Talker | int:
        try:
            return await ring.join("crowd")
        except aiohttp.WSServerHandshakeError as error:
            return error.status

    outcomes = await asyncio.gather(*(attempt() for _ in range(10)))
    assert [one for one in outcomes if isinstance(one, int)] == [409, 409]
    for talker in outcomes:
        if isinstance(talker, Talker):
            assert await talker.finish() == 1000


async def test_the_newest_with_the_token_wins_and_the_old_one_gets_4409(tmp_path: Path) -> None:
    async with arena(tmp_path, session=LASTING) as ring:
        old = await ring.join("raw")
        token = old.seen[0]["resume_token"]
        await old.utter()
        await old.send(voice(1.0))
        new = await ring.join("raw", f"resume={token}")
        assert (await old.end(), old.seen[-1]["code"]) == (4409, "superseded")
        assert old.seen[-1]["retryable"] is False
        ready = new.seen[0]
        assert [final["text"] for final in ready["finals"]] == ["w0 w1 w2"]
        await new.send((UTTERANCE + UTTERANCE)[ready["resume_at"] * 2 :])
        assert await new.finish() == 1000
        assert await ring.finals() == ["w0 w1 w2", "w0 w1 w2 w3"], "nothing twice"


@pytest.mark.parametrize(
    ("token", "status"),
    [
        ("", 403),
        ("nonsense", 403),
        ("st-0000000000000000.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 404),
        ("x" * 5_000, 403),
        ("st-1.%00", 404),
        ("st-1.%c3%a9", 403),
        ("{stream}.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 403),
        ("{stream}x.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 404),
        ("{stream}.", 403),
        ("{token}x", 403),
        ("..%2f..%2fetc", 404),
        ("$ne.$gt", 404),
        ("'%20OR%201=1--.x", 404),
    ],
)
async def test_row_17_a_wrong_token_opens_nothing(tmp_path: Path, token: str, status: int) -> None:
    async with arena(tmp_path, session=LASTING) as ring:
        victim = await ring.join("raw")
        given = token.replace("{token}", victim.seen[0]["resume_token"]).replace("{stream}", victim.seen[0]["stream"])
        assert (await refused(ring, "raw", f"resume={given}"))[0] == status
        await victim.utter()
        assert await victim.finish() == 1000, "the victim did not notice"


async def test_row_17_a_token_opens_only_its_own_interview(tmp_path: Path) -> None:
    async with arena(tmp_path, session=LASTING) as ring:
        victim = await ring.join("raw")
        assert await refused(ring, "other", f"resume={victim.seen[0]['resume_token']}") == (404, "not_found")
        assert (await victim.utter())["text"] == "w0 w1 w2"
        assert await victim.finish() == 1000, "and takes nothing away from its owner"


async def test_an_ended_stream_cannot_be_resumed(ring: Arena) -> None:
    talker = await ring.join("raw")
    assert await talker.finish() == 1000
    assert await refused(ring, "raw", f"resume={talker.seen[0]['resume_token']}") == (410, "stream_ended")


# --- limits of one stream -------------------------------------------------------------------------------------------


async def test_a_stream_over_its_longest_is_finished_and_closed_with_4413(tmp_path: Path) -> None:
    async with arena(tmp_path, session=SessionSettings(max_stream_s=10, resume_window_s=0.1)) as ring:
        peer = await ring.raw()
        for _ in range(6):
            await peer.send(frame(BINARY, UTTERANCE))
        end = await peer.end()
        assert (end.code, end.error) == (4413, "too_long")
        finals = [event["text"] for event in end.events if event["type"] == "final"]
        assert len(finals) >= 5
        assert await ring.finals() == finals, "what was said before the end is told and stored"
        (stream,) = await ring.server.store.streams("raw")
        assert stream.status == "ended"


# --- drain ----------------------------------------------------------------------------------------------------------


async def test_drain_says_goaway_finalises_and_closes_with_1012(tmp_path: Path) -> None:
    async with arena(tmp_path, bystander=False) as ring:
        talkers = [await ring.join(f"i-{number}") for number in range(5)]
        await asyncio.gather(*(talker.begin_to_speak() for talker in talkers))
        draining = asyncio.create_task(ring.server.streams.drain(10.0))
        for talker in talkers:
            assert await talker.end() == 1012
            kinds = [event["type"] for event in talker.seen]
            assert kinds.index("goaway") < kinds.index("final") < kinds.index("error") == len(kinds) - 1
            assert (talker.seen[-1]["code"], talker.seen[-1]["retryable"]) == ("draining", True)
            assert [final["text"][:8] for final in talker.all("final")] == ["w0 w1 w2"]
        await draining
        assert (await ring.get("/health/ready")).status == 503
        assert await refused(ring, "late") == (503, "draining")
        for number in range(5):
            (stream,) = await ring.server.store.streams(f"i-{number}")
            assert stream.status == "live", "another server may go on with it"
            assert await ring.finals(f"i-{number}") == [talkers[number].all("final")[0]["text"]]


async def test_a_drain_leaves_what_is_being_said_to_the_next_server(tmp_path: Path) -> None:
    async with arena(tmp_path, bystander=False) as ring:
        talker = await ring.join("middle")
        await talker.utter()
        await talker.send(voice(2.0))
        await talker.until("partial")
        draining = asyncio.create_task(ring.server.streams.drain(10.0))
        assert await talker.end() == 1012
        await draining
        assert len(talker.all("final")) == len(await ring.finals("middle")) == 1, "no word is cut in two"


# --- faults of ours -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [EngineLost("gone"), RuntimeError("CANARY spoken words")])
async def test_an_engine_that_dies_once_costs_nothing(tmp_path: Path, fault: Exception) -> None:
    engine = CountingEngine()
    failures = [fault]

    async def gate(final: bool) -> None:
        if final and failures:
            raise failures.pop()

    engine.gate = gate
    async with arena(tmp_path, engine=engine, bystander=False) as ring:
        talker = await ring.join("raw")
        assert (await talker.utter())["text"] == "w0 w1 w2"
        assert await talker.finish() == 1000
        assert "CANARY" not in ring.log_text()


async def test_an_engine_that_gives_up_says_so_in_the_final(tmp_path: Path) -> None:
    engine = CountingEngine()

    async def gate(final: bool) -> None:
        if final:
            raise EngineFailed("no")

    engine.gate = gate
    async with arena(tmp_path, engine=engine, bystander=False) as ring:
        talker = await ring.join("raw")
        final = await talker.utter()
        assert (final["text"], final["failed"]) == ("", True)
        assert [warning["code"] for warning in talker.all("warning")] == ["segment_failed"]
        assert await talker.finish() == 1000


async def test_a_fault_inside_is_told_with_1011_and_harms_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever breaks, the peer hears of it, can resume, and the log tells where without what was said."""
    async with arena(tmp_path, bystander=False) as ring:
        calm = await ring.join("calm")
        peer = await ring.raw()
        victim = next(one for one in ring.server.streams._drivers.values() if one.key.interview == "raw")

        def broken(*args: object) -> None:
            raise ZeroDivisionError("CANARY spoken words")

        monkeypatch.setattr(victim, "_feed", broken)
        await peer.send(frame(BINARY, bytes(640)))
        end = await peer.end()
        assert (end.code, end.error) == (1011, "internal")
        assert "CANARY" not in end.events[-1]["message"]
        (line,) = [line for line in ring.log() if line["level"] == "error"]
        assert "ZeroDivisionError" in line["error"]
        assert "CANARY" not in ring.log_text()
        ring.expected_errors = 1
        await calm.utter()
        assert await calm.finish() == 1000


async def test_an_event_that_cannot_be_said_does_not_leave_a_dumb_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with arena(tmp_path) as ring:
        peer = await ring.raw()
        victim = next(one for one in ring.server.streams._drivers.values() if one.key.interview == "raw")
        speaker = victim.outlet
        assert isinstance(speaker, Speaker)

        def broken(*args: object) -> list[str]:
            raise ZeroDivisionError("CANARY")

        monkeypatch.setattr(speaker._dialect, "say", broken)
        await peer.send(frame(BINARY, voice(1.0)))
        await peer.gone()
        await ring.ended()
        ring.expected_errors = 1


async def test_a_client_that_leaves_during_the_handshake_leaves_nothing(ring: Arena) -> None:
    for _ in range(20):
        peer = await ring.connect()
        peer.writer.write(handshake("/transcription/stream/raw", ring.port))
        peer.reset()
    await eventually(lambda: ring.server.streams.connected == 1, lambda: ring.server.streams.connected)
    await ring.ended()


async def test_short_pauses_between_sessions_are_no_leak(ring: Arena) -> None:
    for number in range(30):
        talker = await ring.join(f"i-{number % 3}")
        await talker.send(silence(0.1))
        assert await talker.finish() == 1000
