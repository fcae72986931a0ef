"""The ear of files: several segments at once, each always in the same lane, channels apart."""

from __future__ import annotations

import asyncio

from streamsrv.engines.base import Abilities, About, Hypothesis
from streamsrv.facts import Answer, Position, Word
from streamsrv.runtime.file_ear import FileEar
from streamsrv.session.effects import Hear


class Listener:
    """Hears when it is told to, and says who heard what."""

    def __init__(self, engine: Engine, number: int) -> None:
        self._engine = engine
        self.number = number

    async def hear(self, samples: bytes, *, final: bool) -> Hypothesis:
        self._engine.busy.append(self.number)
        await self._engine.open.wait()
        text = f"{self.number}:{samples.decode()}"
        return Hypothesis(words=(Word(text=text, start=0, stop=1, confidence=1.0),))

    def abandon(self) -> None:
        pass

    def close(self) -> None:
        self._engine.closed += 1


class Engine:
    abilities = Abilities(live=True, languages=None)
    about = About(name="lanes", model="none", device="cpu")
    healthy = True

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.busy: list[int] = []
        self.background: list[bool] = []
        self.closed = 0

    async def start(self) -> None:
        pass

    def listen(self, *, language: str | None, background: bool = False) -> Listener:
        self.background.append(background)
        return Listener(self, len(self.background) - 1)

    async def close(self) -> None:
        pass


class Stand:
    """An ear with three lanes for each of two channels."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.answers: dict[int, str] = {}
        self.ear = FileEar(
            self.engine,
            channels=2,
            language=None,
            read=self._read,
            answered=self._answered,
            troubled=lambda away: None,
            lanes=3,
        )

    def _read(self, channel: int, start: Position, stop: Position) -> bytes:
        return f"c{channel}@{start}".encode()

    def _answered(self, answer: Answer) -> None:
        self.answers[answer.request] = answer.words[0].text

    def ask(self, request: int, *, channel: int, segment: int) -> None:
        self.ear.hear(
            Hear(
                request=request,
                channel=channel,
                segment=segment,
                start=segment * 10,
                stop=segment * 10 + 5,
                final=True,
                deadline=0.0,
            )
        )

    async def rest(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


async def test_segments_are_heard_at_once_and_each_in_its_lane() -> None:
    stand = Stand()
    for segment in range(4):
        stand.ask(segment, channel=0, segment=segment)
    stand.ask(9, channel=1, segment=0)
    await stand.rest()
    assert sorted(stand.engine.busy) == [0, 1, 2, 3], "three lanes of one channel, one of the other; segment 3 waits"
    assert stand.answers == {}
    stand.engine.open.set()
    await stand.rest()
    assert stand.answers == {0: "0:c0@0", 1: "1:c0@10", 2: "2:c0@20", 3: "0:c0@30", 9: "3:c1@0"}


async def test_its_listeners_give_way_and_are_all_closed() -> None:
    stand = Stand()
    assert stand.engine.background == [True] * 6
    stand.ear.close()
    assert stand.engine.closed == 6


async def test_what_is_forgotten_is_not_heard() -> None:
    stand = Stand()
    stand.ask(0, channel=0, segment=0)
    stand.ask(1, channel=0, segment=3)
    stand.ear.forget(1)
    stand.engine.open.set()
    await stand.rest()
    assert list(stand.answers) == [0]
