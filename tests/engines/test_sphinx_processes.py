"""Worker processes that hang, die and are shared; the subject is real processes, so some tests wait for them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from streamsrv.engines._sphinx import keeper, slots
from streamsrv.engines.base import Hypothesis, Listener
from streamsrv.engines.sphinx import SphinxEngine, SphinxSettings
from streamsrv.errors import EngineBusy, EngineFailed, EngineLost, SetupError
from tests.engines.hearing import alive, hear, hear_with_replays, open_files, recording, until

pytest.importorskip("pocketsphinx")
pytestmark = pytest.mark.speech

Start = Callable[..., Awaitable[SphinxEngine]]
SECOND = 32_000


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    engines: list[SphinxEngine] = []

    async def start(**settings: float) -> SphinxEngine:
        engine = SphinxEngine(SphinxSettings(**settings))  # type: ignore[arg-type]
        engines.append(engine)
        await engine.start()
        return engine

    yield start
    for engine in engines:
        await engine.close()


@pytest.fixture(scope="module")
def speech() -> bytes:
    return recording("austen-0920")[: 3 * SECOND]


# --- loss -------------------------------------------------------------------------------------------------------


async def test_a_hung_worker_is_killed_and_replaced_alone(start: Start, speech: bytes) -> None:
    engine = await start(workers=2, deadline_s=0.5)
    expected = await hear(engine.listen(language=None), speech)
    (hung,) = engine.workers
    victim, other = engine.listen(language=None), engine.listen(language=None)
    await victim.hear(speech[:SECOND], final=False)
    await other.hear(speech[:SECOND], final=False)
    (healthy,) = set(engine.workers) - {hung}
    os.kill(hung, signal.SIGSTOP)
    with pytest.raises(EngineLost):
        await victim.hear(speech[SECOND : SECOND + 3_200], final=False)
    await until(lambda: not alive(hung))
    assert alive(healthy)
    rest = [await other.hear(speech[at : at + 3_200], final=False) for at in range(SECOND, len(speech), 3_200)]
    assert rest
    assert await other.hear(b"", final=True) == expected
    assert await hear(victim, speech) == expected
    assert engine.healthy


async def test_a_killed_worker_loses_its_segment_only(start: Start, speech: bytes) -> None:
    engine = await start(workers=1)
    expected = await hear(engine.listen(language=None), speech)
    listener = engine.listen(language=None)
    await listener.hear(speech[:SECOND], final=False)
    (worker,) = engine.workers
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(EngineLost):
        await listener.hear(speech[SECOND:], final=True)
    assert await hear(listener, speech) == expected
    assert worker not in engine.workers


async def test_a_worker_killed_in_mid_answer_is_noticed_at_once(start: Start, speech: bytes) -> None:
    engine = await start(workers=1, deadline_s=60.0)
    listener = engine.listen(language=None)
    await listener.hear(speech[:SECOND], final=False)
    (worker,) = engine.workers
    os.kill(worker, signal.SIGSTOP)
    call = asyncio.create_task(listener.hear(speech[SECOND:], final=True))
    await asyncio.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(EngineLost):
        await asyncio.wait_for(call, 5)


async def test_an_idle_worker_that_died_is_not_handed_out(start: Start, speech: bytes) -> None:
    engine = await start(workers=1)
    (worker,) = engine.workers
    os.kill(worker, signal.SIGKILL)
    await until(lambda: not engine.workers)
    assert (await hear(engine.listen(language=None), speech)).words


async def test_a_killed_zygote_is_replaced(start: Start, speech: bytes) -> None:
    engine = await start(workers=2)
    listeners = [engine.listen(language=None) for _ in range(2)]
    expected = [await hear(listener, speech) for listener in listeners]
    zygote, workers = engine.zygote, engine.workers
    assert zygote is not None
    first = asyncio.gather(*(hear_with_replays(engine.listen(language=None), speech) for _ in range(2)))
    await asyncio.sleep(0.05)
    os.kill(zygote, signal.SIGKILL)
    await until(lambda: not engine.healthy)
    assert await first == expected
    assert engine.healthy
    assert engine.zygote != zygote
    await until(lambda: not any(map(alive, workers)))


async def test_who_waits_is_told_when_zygotes_keep_failing(
    start: Start, speech: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await start(workers=1)
    zygote = engine.zygote
    assert zygote is not None
    monkeypatch.setattr(keeper, "RETRY_S", (0.0,))
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/bin/false")
        os.kill(zygote, signal.SIGKILL)
        await until(lambda: not engine.healthy)
        with pytest.raises(EngineBusy) as caught:  # after the loss of a worker that died with its zygote, maybe
            await hear_with_replays(engine.listen(language=None), speech)
    assert caught.value.retry_after_s
    await until(lambda: engine.healthy)
    await until(lambda: bool(engine.workers))
    assert (await hear(engine.listen(language=None), speech)).words


async def test_a_zygote_that_cannot_start_is_a_setup_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    engine = SphinxEngine()
    with pytest.raises(SetupError):
        await engine.start()
    await engine.close()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    engine = SphinxEngine()
    with pytest.raises(SetupError):
        await engine.start()
    await engine.close()


# --- no orphans -------------------------------------------------------------------------------------------------

PARENT = """
import asyncio, sys
from streamsrv.engines.sphinx import SphinxEngine, SphinxSettings

async def main():
    engine = SphinxEngine(SphinxSettings(workers=2))
    await engine.start()
    listeners = [engine.listen(language=None) for _ in range(2)]
    await asyncio.gather(*(listener.hear(bytes(3200), final=False) for listener in listeners))
    print(engine.zygote, *engine.workers, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("stuck", ["none", "worker", "zygote"])
async def test_a_killed_server_leaves_no_process(stuck: str) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert parent.stdout is not None
    pids = [int(word) for word in (await parent.stdout.readline()).split()]
    assert len(pids) == 3
    assert all(map(alive, pids))
    if stuck != "none":
        os.kill(pids[0 if stuck == "zygote" else 1], signal.SIGSTOP)
    parent.kill()
    await parent.wait()
    await until(lambda: not any(map(alive, pids)))


async def test_close_leaves_no_process(start: Start, speech: bytes) -> None:
    engine = await start(workers=2)
    await engine.listen(language=None).hear(speech[:SECOND], final=False)
    pids = [*engine.workers, engine.zygote or 0]
    await engine.close()
    await engine.close()
    await until(lambda: not any(map(alive, pids)))
    assert not engine.healthy
    with pytest.raises(EngineBusy):
        await engine.listen(language=None).hear(b"", final=True)


async def test_the_terminal_s_signals_do_not_reach_workers(start: Start, speech: bytes) -> None:
    engine = await start(workers=1)
    for pid in (*engine.workers, engine.zygote or 0):
        for unwanted in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, unwanted)
        assert os.getpgid(pid) != os.getpgid(0)
    assert (await hear(engine.listen(language=None), speech)).words
    assert engine.healthy


# --- sharing ----------------------------------------------------------------------------------------------------


async def test_one_slot_is_shared_in_order_and_finals_first(start: Start, speech: bytes) -> None:
    engine = await start(workers=1)
    order: list[str] = []
    holder = engine.listen(language=None)
    await holder.hear(speech[:SECOND], final=False)

    async def session(name: str, *, final: bool) -> Hypothesis:
        listener = engine.listen(language=None)
        heard = await listener.hear(speech, final=final)
        order.append(name)
        if not final:
            heard = await listener.hear(b"", final=True)
        return heard

    waiting = [
        asyncio.create_task(session("first", final=False)),
        asyncio.create_task(session("second", final=False)),
        asyncio.create_task(session("a final", final=True)),
    ]
    await until(lambda: engine.slots.waiting == 3)
    assert (await holder.hear(speech[SECOND:], final=True)).words
    heard = await asyncio.gather(*waiting)
    assert order == ["a final", "first", "second"]
    assert len(engine.workers) == 1
    assert heard[0] == heard[1] == heard[2]


async def test_files_have_workers_that_give_way(start: Start, speech: bytes) -> None:
    engine = await start(workers=1)
    (quick,) = engine.workers
    live, file = engine.listen(language=None), engine.listen(language=None, background=True)
    await live.hear(speech[:SECOND], final=False)
    heard = await file.hear(speech, final=True)  # though the only worker for live speech is held
    (slow,) = set(engine.workers) - {quick}
    assert os.getpriority(os.PRIO_PROCESS, slow) == 19
    assert os.getpriority(os.PRIO_PROCESS, quick) == os.getpriority(os.PRIO_PROCESS, 0)
    assert await live.hear(speech[SECOND:], final=True) == heard


async def test_workers_are_forked_on_demand_and_retired(
    start: Start, speech: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "STALLED_S", 60.0)
    engine = await start(workers=3, idle_s=0.2)
    assert len(engine.workers) == 1
    listeners = [engine.listen(language=None) for _ in range(5)]
    begun = [asyncio.create_task(listener.hear(speech[:SECOND], final=False)) for listener in listeners]
    await until(lambda: sum(call.done() for call in begun) == 3)
    assert (len(engine.workers), engine.slots.waiting) == (3, 2), "who has begun keeps his worker"

    async def end(listener: Listener, call: asyncio.Task[Hypothesis]) -> None:
        await call
        await listener.hear(b"", final=True)

    await asyncio.gather(*map(end, listeners, begun))
    await until(lambda: len(engine.workers) == 1)
    assert (await hear(listeners[0], speech)).words


async def test_a_full_queue_says_so(start: Start, speech: bytes) -> None:
    engine = await start(workers=1, waiting=1)
    holder, waiter, third = (engine.listen(language=None) for _ in range(3))
    await holder.hear(speech[:SECOND], final=False)
    call = asyncio.create_task(waiter.hear(speech, final=True))
    await until(lambda: engine.slots.waiting == 1)
    with pytest.raises(EngineBusy):
        await third.hear(speech, final=True)
    holder.abandon()
    expected = await call
    assert await third.hear(speech, final=True) == expected


async def test_a_stalled_segment_makes_room(start: Start, speech: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "STALLED_S", 0.1)
    engine = await start(workers=1)
    stalled, waiter = engine.listen(language=None), engine.listen(language=None)
    await stalled.hear(speech[:SECOND], final=False)
    expected = await waiter.hear(speech, final=True)
    assert expected.words
    with pytest.raises(EngineLost):
        await stalled.hear(speech[SECOND:], final=True)
    assert await stalled.hear(speech, final=True) == expected


# --- leaving ----------------------------------------------------------------------------------------------------


async def test_abandon_in_mid_hear(start: Start, speech: bytes) -> None:
    engine = await start(workers=1)
    expected = await hear(engine.listen(language=None), speech)
    (worker,) = engine.workers
    listener = engine.listen(language=None)
    call = asyncio.create_task(listener.hear(speech, final=False))
    await asyncio.sleep(0.03)
    listener.abandon()
    assert (await call).words == ()
    listener.abandon()
    assert await hear(listener, speech) == expected
    assert engine.workers == (worker,)


async def test_abandon_while_waiting(start: Start, speech: bytes) -> None:
    engine = await start(workers=1)
    holder, waiter = engine.listen(language=None), engine.listen(language=None)
    await holder.hear(speech[:SECOND], final=False)
    call = asyncio.create_task(waiter.hear(speech, final=False))
    await until(lambda: engine.slots.waiting == 1)
    waiter.abandon()
    assert (await call).words == ()
    assert engine.slots.waiting == 0
    assert (await holder.hear(speech[SECOND:], final=True)).words


async def test_a_cancelled_call_frees_its_worker(start: Start, speech: bytes) -> None:
    engine = await start(workers=1)
    listener = engine.listen(language=None)
    call = asyncio.create_task(listener.hear(speech, final=False))
    await asyncio.sleep(0.03)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await hear(engine.listen(language=None), speech)).words


async def test_a_closed_listener_is_closed(start: Start, speech: bytes) -> None:
    engine = await start(workers=1)
    listener = engine.listen(language=None)
    await listener.hear(speech[:SECOND], final=False)
    listener.close()
    listener.close()
    with pytest.raises(EngineFailed):
        await listener.hear(b"", final=True)
    assert (await hear(engine.listen(language=None), speech)).words


async def test_nothing_leaks(start: Start, speech: bytes) -> None:
    engine = await start(workers=2)
    listeners = [engine.listen(language=None) for _ in range(4)]

    async def some(listener_at: int, segments: int) -> None:
        listener = listeners[listener_at]
        for n in range(segments):
            with suppress(EngineLost):
                await listener.hear(speech[:6_400], final=False)
            if n % 10 == 3:
                listener.abandon()
            elif n % 50 == 7:
                os.kill(engine.workers[0], signal.SIGKILL)
            with suppress(EngineLost):
                await listener.hear(b"", final=True)

    await asyncio.gather(*(some(n, 2) for n in range(4)))
    here, there = open_files(), open_files(engine.zygote)
    await asyncio.gather(*(some(n, 50) for n in range(4)))
    await until(lambda: len(engine.workers) <= 2)
    assert open_files() <= here + 2
    assert open_files(engine.zygote) == there
    assert len(asyncio.all_tasks()) == 1
