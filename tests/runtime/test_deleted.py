"""Sessions whose interview goes: they end with a word, or at once, and nothing of them stays."""

from __future__ import annotations

from streamsrv import commands, events
from streamsrv.errors import Stopped
from streamsrv.runtime.troubles import abortion
from streamsrv.session.states import State
from tests.runtime.stage import Ear, Stage
from tests.support.speech import silence, voice

SENTENCE = voice(1.2) + silence(0.8)
STOPPED = abortion(Stopped("interview 'i' was deleted"), lasting=True)


async def test_what_the_store_no_longer_knows_lets_its_session_go() -> None:
    stage = await Stage().begin()
    await stage.send(SENTENCE)
    await stage.services.store.delete_interview("i")
    await stage.send(SENTENCE)
    assert (stage.driver.machine.state, stage.left) == (State.GONE, 1)
    assert stage.peer.closed == (1008, "stopped")
    last = stage.peer.heard[-1]
    assert isinstance(last, events.Failed)
    assert (last.code, last.message) == ("stopped", "interview 'i' was deleted")


async def test_an_ordered_end_comes_after_the_last_final() -> None:
    stage = await Stage().begin()
    await stage.send(voice(1.2))
    await stage.order(STOPPED)
    assert len(stage.peer.finals) == 1
    last = stage.peer.heard[-1]
    assert isinstance(last, events.Failed)
    assert (last.code, stage.peer.closed, stage.left) == ("stopped", (1008, "stopped"), 1)


async def test_a_cut_ends_at_once_and_says_why() -> None:
    stage = await Stage().begin()
    stage.services.store.away = True
    await stage.send(SENTENCE)
    stage.driver.order(STOPPED)
    await stage.rest()
    assert stage.left == 0
    stage.driver.cut(STOPPED)
    last = stage.peer.heard[-1]
    assert isinstance(last, events.Failed)
    assert (last.code, stage.peer.closed, stage.left) == ("stopped", (1008, "stopped"), 1)
    assert stage.driver.machine.state is State.GONE


async def test_who_is_greeted_after_the_end_is_sent_away() -> None:
    stage = await Stage().begin()
    stage.driver.part(stage.peer)
    await stage.order(STOPPED)
    late = Ear()
    stage.driver.open(late)
    assert (late.closed, late.heard, stage.left) == ((1012, "over"), [], 1)
    await stage.order(commands.KeepAlive())
