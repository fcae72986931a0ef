"""A session as its peer sees it: real front, real machine, and a clock wound by hand."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from streamsrv import commands, events
from streamsrv.commands import Options
from streamsrv.facts import RATE_HZ
from streamsrv.runtime import keeper, live
from streamsrv.runtime.troubles import LOW_S, RING_S
from streamsrv.session.settings import MachineSettings
from streamsrv.session.states import State
from tests.runtime.stage import Stage
from tests.support.speech import silence, voice


def kinds(stage: Stage) -> list[str]:
    return [type(event).__name__ for event in stage.peer.heard]


async def test_an_utterance_is_greeted_heard_and_ended() -> None:
    stage = await Stage().begin()
    await stage.send(silence(0.5) + voice(2.0) + silence(1.0))
    await stage.order(commands.Finish())
    told = kinds(stage)
    assert told[0] == "Ready"
    assert told[-1] == "Closed"
    order = [kind for kind in told if kind in ("SpeechStarted", "SpeechStopped", "Final", "UtteranceEnd")]
    assert order == ["SpeechStarted", "SpeechStopped", "Final", "UtteranceEnd"]
    assert "Partial" in told
    assert "Ack" in told
    assert stage.peer.closed == (1000, "")
    assert stage.left == 1
    final = stage.peer.finals[0]
    assert abs(final.stop - final.start - 2.7 * RATE_HZ) < 0.15 * RATE_HZ, "pre-roll, speech and hang-over"
    assert final.text.split() == [f"w{n}" for n in range(len(final.text.split()))]


async def test_the_engine_hears_every_sample_of_every_segment_once() -> None:
    stage = await Stage().begin()
    await stage.send(silence(0.3) + (voice(1.5) + silence(0.7)) * 3)
    await stage.order(commands.Finish())
    for final in stage.peer.finals:
        assert len(final.words) == (final.stop - final.start) // (RATE_HZ // 2)
    assert len(stage.peer.finals) == 3


async def test_a_long_message_says_the_same_as_many_short_ones() -> None:
    audio = silence(0.4) + voice(3.0) + silence(0.9) + voice(1.0)
    spans = []
    for step_s in (0.02, 0.1, 60.0):
        stage = await Stage().begin()
        await stage.send(audio, step_s=step_s)
        await stage.order(commands.Finish())
        spans.append([(f.start, f.stop, f.text, f.cause) for f in stage.peer.finals])
    assert spans[0] == spans[1] == spans[2]


async def test_two_channels_have_their_own_lines() -> None:
    stage = await Stage(options=Options(channels=2, multichannel=True)).begin()
    left, right = silence(0.2) + voice(1.0) + silence(2.0), silence(1.8) + voice(1.0) + silence(0.4)
    both = b"".join(left[at : at + 2] + right[at : at + 2] for at in range(0, len(left), 2))
    await stage.send(both)
    await stage.order(commands.Finish())
    assert [(f.channel, f.segment) for f in stage.peer.finals] == [(0, 0), (1, 0)]
    assert stage.peer.finals[0].stop < stage.peer.finals[1].start + 0.3 * RATE_HZ


async def test_an_engine_that_stands_still_makes_the_sender_wait_and_nothing_is_lost() -> None:
    stage = await Stage().begin()
    gate = asyncio.Event()
    stage.engine.gate = lambda final: gate.wait()  # type: ignore[assignment,return-value]
    audio = voice(float(RING_S + 20))
    sending = asyncio.create_task(stage.driver.audio(audio))
    for _ in range(2_000):
        await asyncio.sleep(0)
    assert not sending.done(), "the ring is full: the sender waits"
    troubles = [event for event in stage.peer.heard if isinstance(event, events.Degraded)]
    assert [(event.reason, event.active) for event in troubles] == [("buffer", True)]
    gate.set()
    await sending
    await stage.order(commands.Finish())
    for _ in range(100_000):
        if stage.peer.closed is not None:
            break
        await asyncio.sleep(0)
    finals = stage.peer.finals
    assert finals[-1].stop == (RING_S + 20) * RATE_HZ
    assert all(after.start == before.stop for before, after in itertools.pairwise(finals))
    assert [event.active for event in stage.peer.heard if isinstance(event, events.Degraded)] == [True, False]
    assert LOW_S < RING_S


async def test_a_store_that_is_away_delays_finals_and_acks_and_loses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "PAUSES_S", (0.0,))
    stage = await Stage().begin()
    await stage.send(silence(0.3) + voice(1.0))
    stage.services.store.away = True
    await stage.send(silence(1.0) + voice(1.0) + silence(1.2))
    acked = [event.position for event in stage.peer.heard if isinstance(event, events.Ack)]
    assert stage.peer.finals == []
    assert [(e.reason, e.active) for e in stage.peer.heard if isinstance(e, events.Degraded)] == [("store", True)]
    assert set(acked) <= {0}, "an ack waits for the store"
    stage.services.store.away = False
    await stage.send(silence(1.0))
    assert [final.segment for final in stage.peer.finals] == [0, 1]
    assert [(e.reason, e.active) for e in stage.peer.heard if isinstance(e, events.Degraded)][-1] == ("store", False)


async def test_a_lost_worker_is_replayed_and_the_words_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = await Stage().begin()
    calls = 0

    async def lose_some(final: bool) -> None:
        nonlocal calls
        calls += 1
        if calls in (4, 5, 9):
            raise RuntimeError("the worker is gone")

    stage.engine.gate = lose_some
    await stage.send(silence(0.3) + voice(3.0) + silence(1.0))
    final = stage.peer.finals[0]
    assert not final.failed
    assert len(final.words) == (final.stop - final.start) // (RATE_HZ // 2)


async def test_a_segment_that_kills_every_worker_is_given_up_and_says_so() -> None:
    stage = await Stage().begin()

    async def always(final: bool) -> None:
        raise RuntimeError("the worker is gone")

    stage.engine.gate = always
    await stage.send(silence(0.3) + voice(1.0) + silence(1.0))
    assert stage.peer.finals[0].failed
    assert stage.peer.finals[0].text == ""
    assert any(isinstance(event, events.Warned) and event.code == "segment_failed" for event in stage.peer.heard)
    assert live.MAX_REPLAYS == 3


async def test_resume_goes_on_without_a_word_twice_or_lost() -> None:
    """Cut in mid-utterance at many places; what is stored at the end equals the undisturbed run."""
    audio = (
        silence(1.0) + voice(1.2) + silence(1.5) + voice(2.0, seed=1) + silence(1.3) + voice(1.0, seed=2) + silence(0.6)
    )
    undisturbed = await Stage().begin()
    await undisturbed.send(audio)
    await undisturbed.order(commands.Finish())
    wanted = [(f.start, f.stop, f.text, f.segment) for f in undisturbed.peer.finals]
    assert len(wanted) == 3
    for cut_at in (0.5, 1.7, 2.6, 3.4, 4.5, 5.5, 6.2, 7.9):
        stage = await Stage().begin()
        await stage.send(audio[: int(cut_at * RATE_HZ) * 2])
        stage.driver.order(commands.Disconnect(clean=False))
        assert stage.driver.machine.state is State.PARTED
        old = stage.driver
        await stage.resume()
        old.order(commands.Supersede())
        ready = stage.peer.heard[0]
        assert isinstance(ready, events.Ready)
        await stage.send(audio[ready.resume_at * 2 :])
        await stage.order(commands.Finish())
        kept = [(k.final.start, k.final.stop, k.final.text, k.final.segment) for k in stage.services.store.kept]
        assert kept == wanted, f"cut at {cut_at} s, resumed at {ready.resume_at}"


async def test_a_superseded_session_keeps_nothing_more() -> None:
    stage = await Stage().begin()
    await stage.send(silence(0.3) + voice(1.0))
    old, peer = stage.driver, stage.peer
    await stage.resume()
    await old.audio(silence(1.0))
    await stage.rest()
    assert stage.services.store.kept == []
    assert peer.closed == (4409, "superseded")
    assert stage.left == 1


async def test_configure_changes_front_and_store_before_the_first_audio() -> None:
    stage = await Stage().begin()
    wanted = Options(sample_rate=8_000)
    await stage.order(commands.Configure(options=wanted))
    stage.options = wanted
    assert stage.services.store.records["s"].options == wanted
    assert isinstance(stage.peer.heard[-1], events.Configured)
    await stage.send(silence(0.3, rate=8_000) + voice(1.0, rate=8_000) + silence(0.7, rate=8_000))
    assert len(stage.peer.finals) == 1


async def test_a_language_the_engine_does_not_know_ends_the_session_with_its_reason() -> None:
    stage = await Stage().begin()
    await stage.order(commands.Configure(options=Options(language="de-DE")))
    failed = stage.peer.heard[-1]
    assert isinstance(failed, events.Failed)
    assert failed.code == "unsupported_language"
    assert stage.peer.closed is not None
    assert stage.peer.closed[0] == 1008


async def test_anchors_come_at_the_start_and_after_a_pause() -> None:
    stage = await Stage().begin()
    await stage.send(silence(1.5))
    stage.services.clock += 10.0
    await stage.send(silence(1.5))
    anchors = stage.services.store.records["s"].anchors
    assert [anchor.position for anchor in anchors] == [0, 24_000]
    assert anchors[1].utc_ms - anchors[0].utc_ms == 11_500


async def test_the_stream_ends_with_its_account_of_silence() -> None:
    stage = await Stage().begin()
    await stage.send(silence(1.0) + voice(1.0) + silence(1.0))
    await stage.order(commands.Finish())
    stats = stage.services.store.stats["s"]
    final = stage.peer.finals[0]
    assert stats.silence_ms == (3_000 - (final.stop - final.start) * 1_000 // RATE_HZ,)
    assert stats.loudest_discarded_dbfs[0] < -40


async def test_audio_after_the_end_is_ignored() -> None:
    stage = await Stage().begin()
    await stage.order(commands.Finish())
    await stage.driver.audio(voice(1.0))
    assert kinds(stage)[-1] == "Closed"
    assert stage.peer.finals == []


@pytest.mark.parametrize("passed_over", [False, True])
async def test_an_end_during_a_drain_counts_unless_audio_came_that_nobody_heard(
    monkeypatch: pytest.MonkeyPatch, passed_over: bool
) -> None:
    monkeypatch.setattr(keeper, "PAUSES_S", (0.01,))
    stage = await Stage().begin()
    stage.services.store.away = True
    await stage.send(silence(0.5) + voice(2.0) + silence(1.0))
    await stage.order(commands.Drain(within_s=5))
    if passed_over:
        await stage.driver.audio(voice(1.0))
    await stage.order(commands.Finish())
    stage.services.store.away = False
    async with asyncio.timeout(5):
        while stage.peer.closed is None:  # noqa: ASYNC110 -- an outlet that tells nobody
            await asyncio.sleep(0.01)
    assert stage.peer.closed == ((1012, "draining") if passed_over else (1000, ""))
    assert ("Closed" in kinds(stage)) is not passed_over
    assert stage.services.store.records["s"].status == ("live" if passed_over else "ended")


async def test_numbers_return_to_zero() -> None:
    stage = await Stage(settings=MachineSettings()).begin()
    await stage.send(voice(0.5))
    assert stage.services.metrics.sessions._value.get() == 1
    await stage.order(commands.Finish())
    assert stage.services.metrics.sessions._value.get() == 0
    assert stage.services.metrics.degraded._value.get() == 0
