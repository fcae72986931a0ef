"""What could stop the event loop for longer than a word bears."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest

from streamsrv.runtime.streams import Streams
from streamsrv.runtime.turns import A_TURN, Turns
from tests.support.processes import Served
from tests.support.server import running

pytestmark = pytest.mark.slow


LEAVES_A_CYCLE = """
import soxr
from streamsrv.server.main import settled
class One: pass
one = One()
one.me, one.resampler = one, soxr.ResampleStream(8_000, 16_000, 1)
settled()
del one
"""


async def test_the_collector_walks_through_what_sessions_made_and_not_through_the_libraries(tmp_path: Path) -> None:
    server = Served(tmp_path)
    server.module = ("tests.support.collected_server",)
    await server.start()
    try:
        server.signal(signal.SIGTERM)
        told = await server.said("collector")
        assert told["spared"] > 20_000
        assert told["walked"] < told["spared"] / 4
        assert await server.end() == 0
    finally:
        await server.kill()


def test_what_is_spared_is_collected_at_the_end() -> None:
    """Or libraries that count their objects complain on stderr."""
    done = subprocess.run([sys.executable, "-c", LEAVES_A_CYCLE], capture_output=True, text=True, check=True)
    assert done.stderr == ""


async def test_many_who_come_at_once_come_a_few_at_a_time() -> None:
    turns, taken, order = Turns(), [0], []
    loop = asyncio.get_running_loop()

    def count() -> None:
        taken[0] += 1
        loop.call_soon(count)

    async def come(number: int) -> None:
        await turns.mine()
        order.append((number, taken[0]))

    loop.call_soon(count)
    await asyncio.gather(*(come(number) for number in range(50)))
    assert [number for number, _ in order] == list(range(50)), "in the order in which they came"
    assert all(later >= earlier for (_, earlier), (_, later) in pairwise(order))
    assert max(Counter(turn for _, turn in order).values()) <= A_TURN
    assert len({turn for _, turn in order}) <= 50 / A_TURN + 2, "and no turn is given away"


async def test_speakers_that_come_at_once_are_set_up_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    turn = 0
    loop = asyncio.get_running_loop()

    def count() -> None:
        nonlocal turn
        turn += 1
        loop.call_soon(count)

    drive = Streams._drive

    def noted(self: Streams, *args: object) -> object:
        made.append(turn)
        return drive(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Streams, "_drive", noted)
    async with running(tmp_path) as server, aiohttp.ClientSession() as http:
        loop.call_soon(count)
        sockets = await asyncio.gather(*(http.ws_connect(server.stream(f"i-{number}")) for number in range(20)))
        assert len(made) == 20
        assert max(Counter(made).values()) <= A_TURN, "no more in one turn of the loop"
        for socket in sockets:
            await socket.close()


async def test_who_has_waited_for_a_turn_in_vain_takes_none() -> None:
    turns = Turns()
    waiting = [asyncio.create_task(turns.mine()) for _ in range(3 * A_TURN)]
    await asyncio.sleep(0)
    for task in waiting[: 2 * A_TURN]:
        task.cancel()
    await asyncio.wait(waiting, timeout=5)
    assert not any(task.cancelled() for task in waiting[2 * A_TURN :])
    await asyncio.wait_for(turns.mine(), 5)


async def test_a_drain_waits_for_nobody_who_came_while_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()
    mine, come = Turns.mine, 0

    async def held(self: Turns) -> None:
        nonlocal come
        come += 1
        if come == 2:  # the first one is before anything is begun
            await gate.wait()
        await mine(self)

    monkeypatch.setattr(Turns, "mine", held)
    async with running(tmp_path) as server, aiohttp.ClientSession() as http:
        connecting = asyncio.create_task(http.ws_connect(server.stream("late")))
        async with asyncio.timeout(5):
            while come < 2:  # noqa: ASYNC110 -- nobody tells
                await asyncio.sleep(0.01)
        draining = asyncio.create_task(server.streams.drain(30.0))
        await asyncio.sleep(0.05)
        gate.set()
        socket = await connecting
        while (message := await socket.receive(5)).type is aiohttp.WSMsgType.TEXT:
            pass
        assert message.data == 1012
        await asyncio.wait_for(draining, 5)
