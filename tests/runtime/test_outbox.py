"""The outbox on a real store: everything reaches every sink, in order, whatever a sink says or does not say."""

from __future__ import annotations

import asyncio
import importlib
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from streamsrv.errors import SetupError, StoreUnavailable
from streamsrv.runtime.handoff import courier, patience
from streamsrv.runtime.outbox import Outbox, make_sinks
from streamsrv.runtime.settings import OutboxSettings
from streamsrv.sinks import events
from streamsrv.sinks.base import Outcome, Record, failed
from streamsrv.sinks.settings import KafkaSettings, RedisStreamsSettings, WebhookSettings
from streamsrv.stores.base import StreamKey, StreamStats
from streamsrv.stores.handoff import Lease
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.stores.builders import NOW_MS, begin, final, token
from tests.support.sinks import ScriptedSink
from tests.support.watching import until

QUICK = OutboxSettings(poll_s=0.05, longest_pause_s=0.02, batch=10)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_S", 0.01)
    monkeypatch.setattr(courier, "MARK_S", (0.01,) * 5)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(SqliteSettings(data_dir=str(tmp_path / "data")))
    await store.open()
    yield store
    await store.close()


@asynccontextmanager
async def relaying(
    store: SqliteStore,
    *sinks: ScriptedSink,
    settings: OutboxSettings = QUICK,
    node: str = "n1",
    started: bool = True,
    ahead_s: int = 0,
) -> AsyncIterator[Outbox]:
    """A node whose UTC may be ahead."""

    def utc_ms() -> int:
        return time.time_ns() // 1_000_000 + ahead_s * 1_000

    outbox = Outbox(store, sinks, settings, CollectorRegistry(), node=node, chance=random.Random(5), utc_ms=utc_ms)
    if started:
        outbox.start()
    try:
        yield outbox
    finally:
        await outbox.close()


async def talk(store: SqliteStore, count: int, *, interview: str = "talk", stream: str = "s1") -> StreamKey:
    """A stream with finals 0 to ``count``."""
    _, key = await begin(store, interview, stream)
    assert all(await asyncio.gather(*(store.keep_final(key, final(n)) for n in range(count))))
    return key


async def end(store: SqliteStore, key: StreamKey) -> None:
    assert await store.end_stream(key, stats=StreamStats(), now_ms=NOW_MS + 60_000)


def says(verdict: str, *, taken: int = 0, retry_after_s: float | None = None) -> Callable[[Sequence[Record]], Outcome]:
    return lambda batch: failed(verdict, verdict, taken=min(taken, len(batch)), retry_after_s=retry_after_s)  # type: ignore[arg-type]


async def pending(store: SqliteStore) -> int:
    return sum(one.pending for one in await store.figures())


# --- the way of a final ---------------------------------------------------------------------------------------------


async def test_a_whole_interview_reaches_all_sinks_in_order(store: SqliteStore) -> None:
    one, two = ScriptedSink("kafka"), ScriptedSink("webhook")
    async with relaying(store, one, two):
        key = await talk(store, 25)
        await end(store, key)
        for sink in (one, two):
            await until(lambda sink=sink: len(sink.got) == 26)  # type: ignore[misc]
            assert sink.segments() == list(range(25))
            last = sink.events()[-1]
            assert isinstance(last, events.TranscriptCompleted)
            assert (last.revision, last.streams[0].finals) == (1, 25)
            assert len({record.id for record in sink.got}) == 26
        await store.delete_interview("talk")
        await until(lambda: len(one.got) == len(two.got) == 27)
        assert isinstance(one.events()[-1], events.TranscriptDeleted)
    assert await pending(store) == 0
    assert one.closed
    assert two.closed


async def test_a_final_is_handed_on_when_it_is_stored_not_when_somebody_looks(store: SqliteStore) -> None:
    sink = ScriptedSink()
    async with relaying(store, sink, settings=OutboxSettings(poll_s=3_600)):
        await asyncio.sleep(0.05)  # the first look is over
        await talk(store, 1)
        await until(lambda: sink.segments() == [0])


async def test_what_an_earlier_process_left_is_handed_on(store: SqliteStore) -> None:
    async with relaying(store, ScriptedSink(), started=False):
        await talk(store, 30)
        await talk(store, 5, interview="other", stream="s2")
    sink = ScriptedSink()
    async with relaying(store, sink):
        await until(lambda: len(sink.got) == 35)
    assert sink.segments() == list(range(30))
    assert sink.segments("other") == list(range(5))
    assert max(len(batch) for batch in sink.batches) == 10


async def test_a_large_batch_is_cut(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "BATCH_BYTES", 1_000)
    sink = ScriptedSink()
    async with relaying(store, sink, started=False) as outbox:
        _, key = await begin(store)
        for segment in range(6):
            await store.keep_final(key, final(segment, text="word " * (40 if segment == 3 else 1)))
        outbox.start()
        await until(lambda: len(sink.got) == 6)
    assert sink.segments() == list(range(6))
    assert all(len(batch) == 1 or sum(len(one.body) for one in batch) <= 1_000 for batch in sink.batches)
    assert max(len(batch) for batch in sink.batches) > 1


async def test_superseded_finals_are_left_out_and_done_with(store: SqliteStore) -> None:
    sink = ScriptedSink()
    async with relaying(store, sink, started=False) as outbox:
        _, key = await begin(store)
        await store.keep_final(key, final(0))
        await store.keep_final(key, final(2))  # segment 1 is missing: the next epoch begins behind segment 0
        key = (await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)).key
        outbox.start()
        for segment in (1, 2, 3):
            await store.keep_final(key, final(segment))
        await end(store, key)
        await until(lambda: len(sink.got) == 5)
    assert [(one.segment, one.epoch) for one in sink.events() if isinstance(one, events.TranscriptFinal)] == [
        (0, 1), (1, 2), (2, 2), (3, 2),
    ]  # fmt: skip
    assert await pending(store) == 0


async def test_many_interviews_go_side_by_side_but_none_twice(store: SqliteStore) -> None:
    sink = ScriptedSink()
    sink.gate.clear()
    settings = OutboxSettings(poll_s=0.05, interviews_at_once=4, batch=5)
    async with relaying(store, sink, settings=settings):
        for number in range(12):
            await talk(store, 7, interview=f"t{number}", stream=f"s{number}")
        await until(lambda: sink.busy == 4)
        assert len({batch[0].interview for batch in sink.batches}) == len(sink.batches) == 4
        sink.gate.set()
        await until(lambda: len(sink.got) == 84)
    assert sink.most == 4
    for number in range(12):
        assert sink.segments(f"t{number}") == list(range(7))


# --- what sinks say -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", ["unknown", "unavailable"])
async def test_what_nobody_knows_or_takes_is_sent_again_without_end(store: SqliteStore, verdict: str) -> None:
    sink = ScriptedSink()
    sink.script.extend([says(verdict), says(verdict, taken=3), *[says(verdict)] * 12])
    async with relaying(store, sink):
        await talk(store, 10)
        await until(lambda: len(sink.got) == 10)
    assert sink.segments() == list(range(10))
    assert await store.dead_letters(limit=9) == ()


async def test_a_sink_that_is_down_slows_no_other(store: SqliteStore) -> None:
    down, up = ScriptedSink("kafka"), ScriptedSink("webhook")
    down.always = says("unavailable")
    async with relaying(store, down, up, settings=OutboxSettings(poll_s=0.05, longest_pause_s=0.02)):
        for number in range(5):
            await talk(store, 20, interview=f"t{number}", stream=f"s{number}")
        await until(lambda: len(up.got) == 100)
        assert down.got == []
        down.always = says("unavailable", taken=1)
        await until(lambda: len(down.got) > 3)
        down.always = ScriptedSink().always
        await until(lambda: len(down.got) == 100)
    for number in range(5):
        assert down.segments(f"t{number}") == up.segments(f"t{number}") == list(range(20))


async def test_a_sink_that_hangs_slows_no_other(store: SqliteStore) -> None:
    hangs, up = ScriptedSink("kafka"), ScriptedSink("webhook")
    hangs.gate.clear()
    async with relaying(store, hangs, up):
        key = await talk(store, 30)
        await end(store, key)
        await until(lambda: len(up.got) == 31)
        assert hangs.got == []
        hangs.gate.set()
        await until(lambda: len(hangs.got) == 31)


async def test_one_at_a_time_until_the_sink_is_back(store: SqliteStore) -> None:
    sink = ScriptedSink()
    sink.always = says("unavailable")
    async with relaying(store, sink, settings=QUICK, started=False) as outbox:
        for number in range(8):
            await talk(store, 2, interview=f"t{number}", stream=f"s{number}")
        outbox.start()
        await until(lambda: len(sink.batches) > 20)
        assert len({batch[0].interview for batch in sink.batches[-8:]}) > 4, "another interview each time"
        await until(lambda: sink.busy == 0)
        sink.gate.clear()
        sink.most = 0
        await until(lambda: sink.busy == 1)
        await asyncio.sleep(0.1)  # all others have rested by then
        sink.always = ScriptedSink().always
        assert sink.most == 1
        sink.gate.set()
        await until(lambda: len(sink.got) == 16)


async def test_failures_side_by_side_count_once(store: SqliteStore) -> None:
    sink = ScriptedSink()
    sink.gate.clear()
    sink.script.extend([says("unavailable")] * 14)
    async with relaying(store, sink, settings=OutboxSettings(poll_s=0.05, longest_pause_s=3_600), started=False) as one:
        for number in range(14):
            await talk(store, 1, interview=f"t{number}", stream=f"s{number}")
        one.start()
        await until(lambda: sink.busy == 14)
        sink.gate.set()
        await until(lambda: len(sink.got) == 14)


async def test_nobody_rests_when_an_outage_is_over(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interviews rest for an hour here, the sink for as long as it asked for."""
    monkeypatch.setattr(patience.Patience, "pause_s", lambda self, failures, *, asked_s=3_600.0: asked_s)
    sink = ScriptedSink()
    sink.script.extend([says("unavailable", retry_after_s=0.001)] * 3)
    async with relaying(store, sink, started=False) as outbox:
        for number in range(5):
            await talk(store, 1, interview=f"t{number}", stream=f"s{number}")
        outbox.start()
        await until(lambda: len(sink.got) == 5)


async def test_a_pause_is_as_long_as_asked_for(store: SqliteStore) -> None:
    sink = ScriptedSink()
    sink.script.append(says("unavailable", retry_after_s=0.3))
    loop = asyncio.get_running_loop()
    async with relaying(store, sink):
        await talk(store, 1)
        await until(lambda: len(sink.batches) == 1)
        begun = loop.time()
        await until(lambda: len(sink.got) == 1)
        assert loop.time() - begun >= 0.29


async def test_a_record_that_is_refused_is_parked_and_the_others_go_on(store: SqliteStore) -> None:
    sink = ScriptedSink()

    def no_sevens(batch: Sequence[Record]) -> Outcome:
        ids = [record.id.endswith("/7") for record in batch]
        return failed("refused", "status_422") if any(ids) else Outcome(taken=len(batch))

    sink.always = no_sevens
    settings = OutboxSettings(poll_s=3_600, longest_pause_s=0.02, max_refusals=3)
    async with relaying(store, sink, settings=settings) as outbox:
        key = await talk(store, 20)
        await end(store, key)
        await until(lambda: len(sink.got) == 20)
        assert sink.segments() == [n for n in range(20) if n != 7]
        (letter,) = await store.dead_letters(limit=9)
        assert (letter.segment, letter.attempts, letter.reason) == (7, 3, "status_422")
        assert sum(len(batch) == 1 and batch[0].id.endswith("/7") for batch in sink.batches) == 3
        sink.always = ScriptedSink().always
        assert await outbox.retry(sink="kafka", interview=None) == 1
        await until(lambda: len(sink.got) == 21)
    assert sink.segments()[-1] == 7


async def test_those_behind_a_refused_record_wait_for_its_end(store: SqliteStore) -> None:
    """Order is kept while it may still get through."""
    sink = ScriptedSink()
    sink.script.extend([says("refused", taken=2), says("refused"), says("refused")])
    async with relaying(store, sink, settings=OutboxSettings(poll_s=0.05, longest_pause_s=0.02, max_refusals=9)):
        await talk(store, 8)
        await until(lambda: len(sink.got) == 8)
    assert sink.segments() == list(range(8))


async def test_a_relay_survives_a_mistake_of_ours(store: SqliteStore) -> None:
    sink = ScriptedSink()

    def mistaken(batch: Sequence[Record]) -> Outcome:
        raise ZeroDivisionError

    sink.script.extend([mistaken] * 3)
    async with relaying(store, sink):
        await talk(store, 3)
        await until(lambda: len(sink.got) == 3)


# --- the store, the end, other nodes --------------------------------------------------------------------------------


async def test_what_was_taken_is_not_sent_again_because_the_store_was_away(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = store.handed, iter(range(4))

    async def handed(sink: str, interview: str, places: Sequence[int]) -> None:
        if next(failures, None) is not None:
            raise StoreUnavailable("away")
        await real(sink, interview, places)

    monkeypatch.setattr(store, "handed", handed)
    sink = ScriptedSink()
    async with relaying(store, sink):
        await talk(store, 3)
        await until(lambda: sink.segments() == [0, 1, 2])
    assert await pending(store) == 0
    assert len(sink.got) == 3


async def test_reads_that_fail_are_tried_again(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("due", "waiting", "lease"):
        real, failures = getattr(store, name), iter(range(3))

        async def sometimes(*args: object, real=real, failures=failures, **more: object) -> object:  # type: ignore[no-untyped-def]
            if next(failures, None) is not None:
                raise StoreUnavailable("away")
            return await real(*args, **more)

        monkeypatch.setattr(store, name, sometimes)
    sink = ScriptedSink()
    async with relaying(store, sink):
        await talk(store, 3)
        await until(lambda: sink.segments() == [0, 1, 2])


async def test_the_end_waits_for_what_was_just_stored(store: SqliteStore) -> None:
    sink = ScriptedSink()
    async with relaying(store, sink):
        key = await talk(store, 40)
        await end(store, key)
    assert len(sink.got) == 41
    assert await pending(store) == 0


async def test_the_end_does_not_wait_for_a_sink_that_is_away(store: SqliteStore) -> None:
    sink = ScriptedSink()
    sink.always = says("unavailable")
    async with relaying(store, sink, settings=OutboxSettings(poll_s=0.05, longest_pause_s=60)):
        for number in range(9):
            await talk(store, 5, interview=f"t{number}", stream=f"s{number}")
        await until(lambda: len(sink.batches) > 2)
        begun = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - begun < 1.0
    assert await pending(store) == 45


async def test_a_stopped_node_leaves_its_leases_to_others(store: SqliteStore) -> None:
    first, second = ScriptedSink(), ScriptedSink()
    async with relaying(store, first, node="n1"):
        key = await talk(store, 3)
        await until(lambda: len(first.got) == 3)
        assert await store.lease("kafka", "talk", Lease(node="n2", until_ms=NOW_MS)) is not None
    async with relaying(store, second, node="n2"):
        await store.keep_final(key, final(3))
        await until(lambda: second.segments() == [3])


async def test_two_nodes_on_one_store_double_nothing_and_keep_order(store: SqliteStore) -> None:
    sinks = [ScriptedSink(), ScriptedSink()]
    bus: list[Record] = []

    def onto_bus(batch: Sequence[Record]) -> Outcome:
        bus.extend(batch)
        return Outcome(taken=len(batch))

    for sink in sinks:
        sink.always = onto_bus
    settings = OutboxSettings(poll_s=0.05, batch=3)
    async with relaying(store, sinks[0], settings=settings, node="n1", started=False) as one:
        for number in range(20):
            await talk(store, 10, interview=f"t{number}", stream=f"s{number}")
        async with relaying(store, sinks[1], settings=settings, node="n2", started=False) as two:
            one.start()
            two.start()
            await until(lambda: len(bus) == 200)
    assert len({record.id for record in bus}) == 200
    assert all(sink.got for sink in sinks), "both had their share"
    for number in range(20):
        found = [record.id.rpartition("/")[2] for record in bus if record.interview == f"t{number}"]
        assert found == [str(n) for n in range(10)]


@pytest.mark.parametrize("ahead_s", [0, 3_600, -3_600])
async def test_another_node_goes_on_when_a_lease_stands_still(store: SqliteStore, ahead_s: int) -> None:
    """A node that hangs in the middle of a batch: its batch comes twice, nothing is missing, order is kept."""
    hung, second = ScriptedSink(), ScriptedSink()
    hung.gate.clear()
    settings = OutboxSettings(poll_s=0.05, lease_s=1.0, batch=4)
    async with relaying(store, hung, settings=settings, node="n1"):
        await talk(store, 10)
        await until(lambda: hung.busy == 1)
        async with relaying(store, second, settings=settings, node="n2", ahead_s=ahead_s):
            await asyncio.sleep(0.2)
            assert second.batches == []
            await until(lambda: second.segments() == list(range(10)))
            hung.gate.set()
            await until(lambda: hung.busy == 0)
            await asyncio.sleep(0.1)
    assert set(hung.segments()) <= set(range(10))
    assert hung.segments() == sorted(hung.segments())
    assert await pending(store) == 0


# --- numbers, settings ----------------------------------------------------------------------------------------------


async def test_numbers(store: SqliteStore) -> None:
    registry = CollectorRegistry()
    sink = ScriptedSink()
    sink.always = says("unavailable")
    outbox = Outbox(store, [sink], QUICK, registry, chance=random.Random(5))
    outbox.start()

    def number(name: str, **labels: str) -> float:
        return registry.get_sample_value(f"streamsrv_outbox_{name}", {"sink": "kafka", **labels}) or 0.0

    try:
        await talk(store, 3)
        await until(lambda: number("pending") == 3)
        assert 0 <= number("oldest_seconds") < 60
        assert number("failures_total", verdict="unavailable") > 0
        sink.script.append(says("refused"))
        sink.always = ScriptedSink().always
        await until(lambda: number("pending") == 0)
        assert number("handed_total") == number("lag_seconds_count") == 3
        assert number("oldest_seconds") == number("dead") == 0
    finally:
        await outbox.close()


def test_sinks_are_made_as_named() -> None:
    webhook = WebhookSettings(url="https://analysis.example/events", secrets=("0123456789abcdef",))
    made = make_sinks(
        OutboxSettings(sinks=("webhook", "webhook")),
        kafka=KafkaSettings(),
        redis_streams=RedisStreamsSettings(),
        webhook=webhook,
    )
    assert [sink.name for sink in made] == ["webhook"]


@pytest.mark.parametrize(
    ("sink", "extra", "setting"),
    [("kafka", "kafka", "kafka.bootstrap"), ("redis_streams", "redis", "redis_streams.url")],
)
def test_what_is_not_installed_or_not_set_up_stops_the_start(
    sink: str, extra: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"streamsrv.sinks.{sink}")

    def refused() -> SetupError:
        with pytest.raises(SetupError) as caught:
            make_sinks(
                OutboxSettings(sinks=(sink,)),
                kafka=KafkaSettings(),
                redis_streams=RedisStreamsSettings(),
                webhook=WebhookSettings(),
            )
        return caught.value

    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert refused().hint == f"pip install 'streamsrv[{extra}]'"
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    assert setting in refused().hint


def test_a_lease_must_outlast_a_batch() -> None:
    webhook = WebhookSettings(url="https://analysis.example/events", secrets=("0123456789abcdef",), timeout_s=60)
    with pytest.raises(SetupError, match=r"lease_s = 30 is shorter than twice webhook.timeout_s = 60"):
        make_sinks(
            OutboxSettings(sinks=("webhook",)), kafka=KafkaSettings(), redis_streams=RedisStreamsSettings(),
            webhook=webhook,
        )  # fmt: skip
