"""People's digits, when the server goes away in the middle: what it kept and what the next one hears are all words."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from streamsrv import commands
from streamsrv.audio.front import Front
from streamsrv.commands import Options
from streamsrv.facts import RATE_HZ, ChannelStart, CutMade, Mark
from streamsrv.runtime.engines import machine_settings
from streamsrv.runtime.settings import SessionSettings
from streamsrv.session.effects import AnyEffect, Cut, Hold, Release
from tests.engines.whisper.asking import Recording, recordings
from tests.engines.whisper.conftest import DIGITS, Begin
from tests.engines.whisper.test_growing import Room
from tests.session.test_machine import check_stability

pytestmark = pytest.mark.speech

STEP = RATE_HZ // 10


@dataclass(kw_only=True)
class Node(Room):
    """A room whose front is the real one: the person is heard from ``starts`` on."""

    def __post_init__(self) -> None:
        self.front = Front(Options(), starts=self.starts)
        super().__post_init__()

    def _carry_out(self, effect: AnyEffect) -> None:
        match effect:
            case Cut(cause=cause, channels=channels):
                marks: list[Mark] = (
                    self.front.part(self.now, channels) if cause == "part" else self.front.finish(self.now)
                )
                self._mark([*marks, CutMade(cause=cause, position=self.front.position)])
            case Hold(channel=channel, earliest=earliest):
                self.front.hold(channel, earliest)
            case Release(channel=channel, position=position):
                self.front.release(channel, position)
            case _:
                super()._carry_out(effect)

    def _mark(self, marks: Sequence[Mark]) -> None:
        for mark in marks:
            self.run(self.machine.marked(mark, self.now))

    def hear(self, until: int, then: commands.AnyCommand) -> list[str]:
        """The words of the finals when ``then`` comes at sample ``until``."""
        for begin in range(self.front.position, until, STEP):
            stop = min(begin + STEP, until)
            self.wind(self.now + (stop - begin) / RATE_HZ)
            self.receive(commands.Audio(data=b""))
            self.machine.last_heard = self.now
            self._mark(self.front.feed(self.person.audio[begin:stop].tobytes(), self.now))
        self.receive(then)
        self.settle()
        assert self.left
        self.attention.close()
        check_stability(self)
        return [word.text for final in self.finals for word in final.words]

    @property
    def kept_so_far(self) -> ChannelStart:
        """Where the next node goes on."""
        last = self.finals[-1] if self.finals else None
        return ChannelStart(
            restart=self.noted[-1][0] if self.noted else 0,
            kept_to=last.stop if last else 0,
            next_segment=last.segment + 1 if last else 0,
            next_utterance=last.utterance + last.endpoint if last else 0,
        )


def spoken(person: Recording, chance: random.Random) -> Recording:
    """Somewhere in a silence, as in a call."""
    before, after = np.zeros(chance.randint(8_000, 16_000), np.int16), np.zeros(RATE_HZ, np.int16)
    return person._replace(audio=np.concatenate([before, person.audio, after]))


@pytest.mark.parametrize("floor", [1, 5])
async def test_a_drain_in_the_middle_costs_no_word(begin: Begin, floor: int) -> None:
    """One in a hundred may: the model of digits itself says some words twice, wherever it begins to hear."""
    engine = await begin(DIGITS, window_floor_s=floor)
    settings = machine_settings(engine.abilities, SessionSettings())
    kept, wrong = 0, []
    for seed in range(8):
        chance = random.Random(seed)
        for one in recordings(DIGITS):
            person = spoken(one, chance)
            first = Node(seed=seed, engine=engine, person=person, settings=settings)
            at = chance.randint(len(person.audio) - RATE_HZ - len(one.audio), len(person.audio) - RATE_HZ)
            heard = first.hear(at, commands.Drain(within_s=3.0))
            kept += len(heard)
            second = Node(seed=seed, engine=engine, person=person, settings=settings, starts=(first.kept_so_far,))
            heard += second.hear(len(person.audio), commands.Finish())
            if heard != one.words:
                wrong.append((seed, at, one.words, heard))
    assert len(wrong) <= 1, wrong
    assert kept > 50, "what was surely said is kept before the server goes"


async def test_a_silence_after_the_last_word_costs_none(begin: Begin) -> None:
    engine = await begin(DIGITS)
    settings = machine_settings(engine.abilities, SessionSettings())
    wrong = []
    for seed in range(6):
        chance = random.Random(seed)
        for one in recordings(DIGITS):
            person = spoken(one, chance)
            node = Node(seed=seed, engine=engine, person=person, settings=settings)
            heard = node.hear(len(person.audio), commands.Finish())
            if heard != one.words:
                wrong.append((seed, one.words, heard))
    assert len(wrong) <= 1, wrong
