"""With several nodes viewers are told finals in the order of storing, whatever is late, lost or doubled on the way."""

from __future__ import annotations

import asyncio
import random

import pytest

from streamsrv import events, telemetry
from streamsrv.commands import Options
from streamsrv.events import ViewerEvent
from streamsrv.runtime import audience as module
from streamsrv.runtime.fanout import Fanout, Told, Watch
from streamsrv.shared_state.base import Condition
from streamsrv.shared_state.memory import MemoryState
from streamsrv.stores.base import FinalName, PlacedFinal, StreamKey
from tests.stores.builders import final
from tests.support.memory import MemoryStore


class Others(MemoryState):
    """There are other nodes."""

    condition: Condition = "ok"


class Store(MemoryStore):
    """A store whose reads take their time."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance
        self.hidden: set[tuple[str, int]] = set()
        """Finals that have their place, and are not there yet."""

    async def finals_since(self, interview: str, place: int, *, limit: int) -> tuple[PlacedFinal, ...]:
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)
        found = await super().finals_since(interview, place, limit=limit)
        found = tuple(one for one in found if (one.stream, one.final.segment) not in self.hidden)
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)
        return found


class World:
    """An interview two nodes serve; this is one of them."""

    def __init__(self, seed: int = 0) -> None:
        self.chance = random.Random(seed)
        self.store = Store(self.chance)
        self.fanout = Fanout(self.store, telemetry.Metrics("test"), most=50, shared=Others())
        self.next: dict[str, int] = {}

    async def begin(self, *streams: str) -> None:
        for stream in streams:
            await self.store.begin_stream(
                interview="talk", stream=stream, token_hash=b"", options=Options(), engine="x", now_ms=0
            )

    async def store_final(self, stream: str) -> events.Final:
        one = final(self.next.get(stream, 0))
        self.next[stream] = one.segment + 1
        await self.store.keep_final(StreamKey(interview="talk", stream=stream, epoch=1), one)
        return one

    def tell(self, stream: str, event: ViewerEvent) -> None:
        self.fanout.hear("talk", Told(stream, event))

    @property
    def stored(self) -> list[FinalName]:
        return [FinalName(one.stream, one.final.channel, one.final.segment) for one in self.store.kept]


async def view(world: World, done: asyncio.Event) -> list[FinalName]:
    """Come, read a while, go, and come back behind the last final seen."""
    seen: list[FinalName] = []
    over = False
    while not over:
        over = done.is_set()
        with world.fanout.watch("talk", seen[-1] if seen else None) as watch:
            if over:
                world.fanout.audiences["talk"].read_on()
            while over or world.chance.random() < 0.8:
                told = await watch.next(0.01 if over else 0.0)
                if told is None and over:
                    break
                if told is not None and isinstance(told.event, events.Final):
                    seen.append(FinalName(told.stream, told.event.channel, told.event.segment))
        await asyncio.sleep(0)
    return seen


@pytest.mark.parametrize("held", [3, 256])
@pytest.mark.parametrize("seed", range(60))
async def test_every_viewer_sees_every_final_once_in_the_order_of_storing(
    seed: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_HELD", held)
    monkeypatch.setattr(module, "PAGE", 3)
    world = World(seed)
    await world.begin("near", "far")
    done = asyncio.Event()
    viewers = [asyncio.create_task(view(world, done)) for _ in range(3)]

    async def late(stream: str, event: events.Final) -> None:
        for _ in range(world.chance.randrange(30)):
            await asyncio.sleep(0)
        for _ in range(world.chance.randrange(3)):  # lost, once, or twice
            world.tell(stream, event)

    telling: list[asyncio.Task[None]] = []
    for _ in range(30):
        stream = world.chance.choice(["near", "far"])
        event = await world.store_final(stream)
        if stream == "near":
            world.tell(stream, event)
        else:
            telling.append(asyncio.create_task(late(stream, event)))
        for _ in range(world.chance.randrange(5)):
            await asyncio.sleep(0)
    await asyncio.gather(*telling)
    done.set()
    for seen in await asyncio.gather(*viewers):
        assert seen == world.stored


@pytest.mark.parametrize("seed", range(40))
async def test_a_final_that_comes_to_light_after_later_ones_is_told(seed: int) -> None:
    """Two nodes write: the one gets its place first, and is the last to be seen."""
    world = World(seed)
    await world.begin("near", "far")
    with world.fanout.watch("talk") as one:
        reading = asyncio.create_task(seen_by(one, 40))
        for _ in range(20):
            for stream in ("far", "near"):
                await world.store_final(stream)
            hidden = world.store.kept[-2]
            world.store.hidden = {(hidden.stream, hidden.final.segment)}
            world.tell("near", world.store.kept[-1].final)
            for _ in range(world.chance.randrange(20)):
                await asyncio.sleep(0)
            world.store.hidden = set()
            world.tell("far", hidden.final)
        seen = await reading
    assert sorted(seen, key=str) == sorted(world.stored, key=str)


async def seen_by(watch: Watch, count: int) -> list[FinalName]:
    told = [await watch.next(2.0) for _ in range(count)]
    return [
        FinalName(one.stream, one.event.channel, one.event.segment)
        for one in told
        if one is not None and isinstance(one.event, events.Final)
    ]


async def test_what_happens_meanwhile_waits_behind_the_final() -> None:
    world = World()
    await world.begin("s")
    with world.fanout.watch("talk") as watch:
        assert await watch.next(0.0) is None
        world.tell("s", await world.store_final("s"))
        world.tell("s", events.UtteranceEnd(channel=0, utterance=0, last_word_stop=9))
        world.tell("s", events.StreamOver())
        told = [await watch.next(1.0) for _ in range(3)]
    assert [type(one.event) for one in told if one is not None] == [
        events.Final,
        events.UtteranceEnd,
        events.StreamOver,
    ]


async def test_a_final_that_is_only_in_a_spool_is_told_as_it_is() -> None:
    world = World()
    with world.fanout.watch("talk") as watch:
        assert await watch.next(0.0) is None
        spooled = events.Final(
            channel=0, utterance=0, segment=0, start=0, stop=9, text="a", cause="vad", endpoint=True, engine="x",
            durable="spool",
        )  # fmt: skip
        world.tell("s", spooled)
        told = await watch.next(1.0)
    assert told is not None
    assert told.event == spooled


async def test_while_the_store_is_away_finals_wait_and_streams_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamsrv.runtime.fanout.STORE_PAUSE_S", 0.0)
    world = World()
    await world.begin("s")
    with world.fanout.watch("talk") as watch:
        assert await watch.next(0.0) is None
        one = await world.store_final("s")
        world.store.away = True
        world.tell("s", one)
        world.tell("s", events.StreamOver())
        for _ in range(20):
            await asyncio.sleep(0)
        assert watch.catch_ups == 1
        world.store.away = False
        told = [await watch.next(1.0) for _ in range(2)]
    assert [type(one.event) for one in told if one is not None] == [events.Final, events.StreamOver]
