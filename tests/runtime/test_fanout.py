"""Viewers see every final once, however they come, go, dawdle and come back."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from streamsrv import events, telemetry
from streamsrv.commands import Options
from streamsrv.errors import Draining, Full, Stopped, StoreUnavailable
from streamsrv.runtime import fanout as module
from streamsrv.runtime.fanout import Fanout, Told, Watch
from streamsrv.stores.base import FinalName, PlacedFinal, StreamKey
from tests.stores.builders import final
from tests.support.memory import MemoryStore

SEEDS = range(150)


class Store(MemoryStore):
    """A store whose reads take their time, and see what was stored when they end or when they began."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance
        self.trouble = 0.0

    async def dawdle(self) -> None:
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)
        if self.chance.random() < self.trouble:
            raise StoreUnavailable("away")

    async def place_of(self, interview: str, name: FinalName) -> int:
        await self.dawdle()
        return await super().place_of(interview, name)

    async def finals_since(self, interview: str, place: int, *, limit: int) -> tuple[PlacedFinal, ...]:
        await self.dawdle()
        found = await super().finals_since(interview, place, limit=limit)
        await self.dawdle()
        return found


def partial(segment: int, text: str = "", channel: int = 0) -> events.Partial:
    return events.Partial(
        channel=channel, utterance=segment, segment=segment, start=0, stop=1, text=text, stable_chars=0, lag_ms=0
    )


class World:
    """An interview with a few streams, some viewers, and chance."""

    def __init__(self, seed: int = 0) -> None:
        self.chance = random.Random(seed)
        self.store = Store(self.chance)
        self.metrics = telemetry.Metrics("test")
        self.fanout = Fanout(self.store, self.metrics, most=50)
        self.keys: list[StreamKey] = []
        self.next: dict[tuple[str, int], int] = {}
        self.untold: deque[tuple[StreamKey, events.Final]] = deque()

    async def begin(self, interview: str = "talk") -> StreamKey:
        stream = f"s{len(self.keys)}"
        await self.store.begin_stream(
            interview=interview, stream=stream, token_hash=b"", options=Options(), engine="x", now_ms=0
        )
        self.keys.append(StreamKey(interview=interview, stream=stream, epoch=1))
        return self.keys[-1]

    def partial(self, key: StreamKey, channel: int = 0) -> None:
        self.fanout.tell(key, partial(self.next.get((key.stream, channel), 0), channel=channel))

    async def final(self, key: StreamKey, channel: int = 0) -> FinalName:
        """Stored first, then told."""
        track = (key.stream, channel)
        segment = self.next.get(track, 0)
        self.next[track] = segment + 1
        one = final(segment, channel=channel)
        await self.store.keep_final(key, one)
        self.untold.append((key, one))
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)
        while any(waiting is one for _, waiting in self.untold):  # told in the order of storing, as sessions are
            self.fanout.tell(*self.untold.popleft())
        return FinalName(*track, segment)

    @property
    def stored(self) -> list[FinalName]:
        return [FinalName(one.stream, one.final.channel, one.final.segment) for one in self.store.kept]


class Seen(NamedTuple):
    """What one viewer was told."""

    all: list[Told]

    @property
    def finals(self) -> list[FinalName]:
        return [
            FinalName(told.stream, told.event.channel, told.event.segment)
            for told in self.all
            if isinstance(told.event, events.Final)
        ]


async def drained(watch: Watch) -> Seen:
    """All that waits for this viewer now."""
    seen = Seen([])
    while (told := await watch.next(0.0)) is not None:
        seen.all.append(told)
    return seen


def once_and_in_order(seen: list[FinalName], wanted: list[FinalName]) -> None:
    """Each wanted final once, those of a channel in order."""
    assert sorted(seen, key=str) == sorted(wanted, key=str)
    tracks = {(name.stream, name.channel) for name in seen}
    for track in tracks:
        segments = [name.segment for name in seen if (name.stream, name.channel) == track]
        assert segments == sorted(segments)


# --- the seam ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds so small that every schedule meets them."""
    monkeypatch.setattr(module, "PAGE", 3)
    monkeypatch.setattr(module, "MAX_WAITING", 5)
    monkeypatch.setattr(module, "RECENT", 4)
    monkeypatch.setattr(module, "STORE_PAUSE_S", 0.0)


async def talk(world: World, rounds: int) -> None:
    """Several speakers at once, in any order."""

    async def speak(key: StreamKey) -> None:
        for _ in range(rounds):
            for _ in range(world.chance.randrange(3)):
                await asyncio.sleep(0)
            channel = world.chance.randrange(2)
            if world.chance.random() < 0.5:
                world.partial(key, channel)
            else:
                await world.final(key, channel)

    await asyncio.gather(*(speak(key) for key in world.keys))


async def view(world: World, done: asyncio.Event, patience: float) -> list[FinalName]:
    """Come at some time, read at some pace, now and then go and come back behind the last final seen."""
    seen: list[FinalName] = []
    known: FinalName | None = None
    over = False
    while not over:
        for _ in range(world.chance.randrange(6)):
            await asyncio.sleep(0)
        over = done.is_set()
        with world.fanout.watch("talk", known) as watch:
            while over or world.chance.random() < patience:
                told = await watch.next(0.0)
                if told is None and over:
                    break
                if told is not None and isinstance(told.event, events.Final):
                    known = FinalName(told.stream, told.event.channel, told.event.segment)
                    seen.append(known)
                for _ in range(world.chance.randrange(3)):
                    await asyncio.sleep(0)
    return seen


@pytest.mark.usefixtures("tight")
@pytest.mark.parametrize("trouble", [0.0, 0.2])
@pytest.mark.parametrize("seed", SEEDS)
async def test_every_viewer_sees_every_final_once(seed: int, trouble: float) -> None:
    world = World(seed)
    for _ in range(1 + world.chance.randrange(3)):
        await world.begin()
    await talk(world, world.chance.randrange(10))
    world.store.trouble = trouble
    done = asyncio.Event()
    viewers = [asyncio.create_task(view(world, done, world.chance.choice([0.5, 0.9, 0.99]))) for _ in range(3)]
    await talk(world, world.chance.randrange(25))
    done.set()
    for seen in await asyncio.gather(*viewers):
        once_and_in_order(seen, world.stored)
    assert world.fanout.viewers == 0


@pytest.mark.usefixtures("tight")
@pytest.mark.parametrize("seed", range(40))
async def test_a_read_that_is_cancelled_loses_nothing(seed: int) -> None:
    world = World(seed)
    key = await world.begin()
    for _ in range(8):
        await world.final(key)
    known = world.stored[2]
    with world.fanout.watch("talk", known) as watch:
        seen: list[FinalName] = []
        for _ in range(200):
            asking = asyncio.create_task(watch.next(0.0))
            for _ in range(world.chance.randrange(8)):
                await asyncio.sleep(0)
            if not asking.done():
                asking.cancel()
            try:
                told = await asking
            except asyncio.CancelledError:
                continue
            if told is not None:
                assert isinstance(told.event, events.Final)
                seen.append(FinalName(told.stream, told.event.channel, told.event.segment))
    assert seen == world.stored[3:]


@pytest.mark.parametrize("before", [0, 3, 4, 10])
async def test_finals_told_in_another_order_than_stored_are_not_lost(
    monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """However many were sent before, more or fewer than are remembered."""
    monkeypatch.setattr(module, "MAX_WAITING", 5)
    monkeypatch.setattr(module, "RECENT", 4)
    world = World()
    one, two = await world.begin(), await world.begin()
    for _ in range(before):
        await world.final(two)
    with world.fanout.watch("talk") as watch:
        await drained(watch)
        await world.store.keep_final(one, final(0))
        await world.store.keep_final(two, final(before))
        world.fanout.tell(two, final(before))
        assert (await drained(watch)).finals == [FinalName("s1", 0, before)]
        world.fanout.tell(one, final(0))
        for _ in range(9):
            world.fanout.tell(one, events.SpeechStarted(channel=0, utterance=1, at=0))
        assert watch.catch_ups == 1
        assert (await drained(watch)).finals == [FinalName("s0", 0, 0)]


# --- one promise each --------------------------------------------------------------------------------------------


async def test_stored_finals_come_first_in_the_order_of_storing() -> None:
    world = World()
    one, two = await world.begin(), await world.begin()
    for key in (one, two, one):
        await world.final(key)
    with world.fanout.watch("talk") as watch:
        world.partial(two)
        seen = await drained(watch)
    assert seen.finals == world.stored
    assert isinstance(seen.all[-1].event, events.Partial)


async def test_after_a_known_final_only_what_follows() -> None:
    world = World()
    one, two = await world.begin(), await world.begin()
    names = [await world.final(key) for key in (one, two, two, one)]
    with world.fanout.watch("talk", names[1]) as watch:
        assert (await drained(watch)).finals == names[2:]


async def test_who_came_back_and_falls_behind_is_sent_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before as many finals were sent as are remembered."""
    monkeypatch.setattr(module, "MAX_WAITING", 5)
    world = World()
    key = await world.begin()
    names = [await world.final(key) for _ in range(3)]
    with world.fanout.watch("talk", names[0]) as watch:
        assert (await drained(watch)).finals == names[1:]
        for _ in range(9):
            world.fanout.tell(key, events.SpeechStarted(channel=0, utterance=1, at=0))
        names.append(await world.final(key))
        assert watch.catch_ups == 1
        assert (await drained(watch)).finals == names[3:]


@pytest.mark.parametrize("name", [FinalName("s0", 0, 9), FinalName("elsewhere", 0, 0)])
async def test_after_an_unknown_final_everything(name: FinalName) -> None:
    world = World()
    key = await world.begin()
    known = await world.final(key)
    with world.fanout.watch("talk", name) as watch:
        assert (await drained(watch)).finals == [known]


async def test_a_slow_viewer_loses_partials_never_finals_and_costs_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 20)
    world = World()
    key = await world.begin()
    with world.fanout.watch("talk") as watch:
        assert (await drained(watch)).all == []
        for segment in range(60):
            for word in range(50):
                world.fanout.tell(key, partial(segment, f"w{word}"))
            world.fanout.tell(key, events.SpeechStopped(channel=0, utterance=segment, at=0))
            await world.final(key)
            assert len(watch._queue) <= 20
        seen = await drained(watch)
    assert seen.finals == world.stored
    assert len(seen.all) < 100
    assert watch.catch_ups == 1
    assert world.metrics.viewer_catch_ups._value.get() == 1


async def test_a_newer_partial_takes_the_place_of_the_older_of_its_segment() -> None:
    world = World()
    one, two = await world.begin(), await world.begin()
    with world.fanout.watch("talk") as watch:
        for key, text in ((one, "a"), (two, "b"), (one, "a c")):
            world.fanout.tell(key, partial(0, text))
        seen = await drained(watch)
    assert [(told.stream, told.event.text) for told in seen.all if isinstance(told.event, events.Partial)] == [
        ("s0", "a c"),
        ("s1", "b"),
    ]


async def test_partials_of_what_is_final_are_not_told() -> None:
    world = World()
    key = await world.begin()
    with world.fanout.watch("talk") as watch:
        world.partial(key)
        await world.store.keep_final(key, final(0))
        seen = await drained(watch)
    assert [type(told.event) for told in seen.all] == [events.Final]


async def test_a_viewer_that_falls_behind_still_hears_of_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 5)
    world = World()
    key = await world.begin()
    started = events.Configured(options=Options(speaker="Ada"))
    with world.fanout.watch("talk") as watch:
        await drained(watch)
        world.fanout.tell(key, started)
        for utterance in range(9):
            world.fanout.tell(key, events.SpeechStarted(channel=0, utterance=utterance, at=0))
        world.fanout.tell(key, events.StreamOver())
        assert watch.catch_ups == 1
        assert [told.event for told in (await drained(watch)).all] == [started, events.StreamOver()]


@pytest.mark.parametrize(
    "event",
    [
        events.Ack(position=0),
        events.Warned(code="x", message=""),
        events.Failed(code="x", message="", retryable=True),
        events.GoAway(within_ms=1),
        events.Closed(cause="finish", position=0, finals=0),
    ],
)
async def test_what_is_between_server_and_speaker_stays_there(event: events.AnyEvent) -> None:
    world = World()
    key = await world.begin()
    with world.fanout.watch("talk") as watch:
        world.fanout.tell(key, event)
        assert (await drained(watch)).all == []


async def test_other_interviews_are_not_heard() -> None:
    world = World()
    other = await world.begin("other")
    with world.fanout.watch("talk") as watch:
        await world.final(other)
        assert (await drained(watch)).all == []


async def test_what_came_from_a_spool_does_not_hide_what_another_server_makes_of_it() -> None:
    """A viewer comes when segments 0 and 1 lie in the spool of a server that goes away; it is told 2.  The next server
    hears all of them again."""
    world = World()
    key = await world.begin()
    with world.fanout.watch("talk") as watch:
        await drained(watch)
        spooled = replace(final(2, text="two"), durable="spool")
        world.fanout.tell(key, spooled)
        world.fanout.tell(key, spooled)
        assert len((await drained(watch)).finals) == 1, "the same again is nothing new"
        anew = [final(0), final(1), final(2, text="two one black")]
        for one in anew:
            world.fanout.tell(key, one)
        assert [told.event for told in (await drained(watch)).all] == anew
        for one in anew:
            world.fanout.tell(key, one)
        assert (await drained(watch)).all == []


async def test_what_came_from_a_spool_is_not_sent_again_when_it_is_stored() -> None:
    world = World()
    key = await world.begin()
    with world.fanout.watch("talk") as watch:
        await drained(watch)
        for number in range(3):
            await world.store.keep_final(key, final(number))
            world.fanout.tell(key, replace(final(number), durable="spool"))
        assert len((await drained(watch)).finals) == 3
        watch.fall_behind()
        assert (await drained(watch)).all == []


# --- ends --------------------------------------------------------------------------------------------------------


async def ends(watch: Watch, end: Callable[[], None] | None, kind: type[Exception]) -> Seen:
    seen = Seen([])
    if end is not None:
        end()
    try:
        while (told := await watch.next(0.0)) is not None:
            seen.all.append(told)
    except kind:
        return seen
    raise AssertionError("it did not end")


async def test_a_deleted_interview_ends_at_once() -> None:
    world = World()
    key = await world.begin()
    await world.final(key)
    with world.fanout.watch("talk") as watch, world.fanout.watch("other") as other:
        seen = await ends(watch, lambda: world.fanout.dismiss("talk", Stopped("deleted")), Stopped)
        assert seen.all == []
        assert await other.next(0.0) is None


async def test_who_waits_is_woken_by_the_end() -> None:
    world = World()
    with world.fanout.watch("talk") as watch:
        waiting = asyncio.create_task(watch.next())
        for _ in range(9):
            await asyncio.sleep(0)
        world.fanout.dismiss("talk", Stopped("deleted"))
        with pytest.raises(Stopped):
            await waiting


async def test_a_server_that_goes_tells_its_viewers_and_lets_them_see_the_last_finals() -> None:
    world = World()
    key = await world.begin()
    with world.fanout.watch("talk") as watch:
        await drained(watch)
        world.fanout.drain(2.0)
        await world.final(key)
        seen = await ends(watch, world.fanout.close, Draining)
    assert [type(told.event) for told in seen.all] == [events.GoAway, events.Final]
    with pytest.raises(Draining), world.fanout.watch("talk"):
        pass


async def test_viewers_are_counted_and_bounded() -> None:
    world = World()
    world.fanout = Fanout(world.store, world.metrics, most=2)
    with world.fanout.watch("a"), world.fanout.watch("b"):
        assert world.metrics.viewers._value.get() == 2
        with pytest.raises(Full), world.fanout.watch("a"):
            pass
    assert world.metrics.viewers._value.get() == 0
    assert world.fanout.audiences == {}
    with world.fanout.watch("a"):
        assert world.fanout.viewers == 1
