"""``streamsrv serve`` as it is, but for its ears: ``python -m tests.support.real_server [FLAGS OF serve]``.

It hears with the engine that counts half seconds.  From the environment: ``HEAR_S``, seconds each final takes;
``START_S``, seconds the engine takes to start.
"""

from __future__ import annotations

import asyncio
import os
import sys

from streamsrv import cli
from streamsrv.server import main
from tests.support.engines import CountingEngine


class SlowEngine(CountingEngine):
    async def start(self) -> None:
        await asyncio.sleep(float(os.environ.get("START_S", "0")))


async def _gate(final: bool) -> None:
    if final:
        await asyncio.sleep(float(os.environ.get("HEAR_S", "0")))


def _make_engine(*args: object, **settings: object) -> tuple[CountingEngine, str]:
    engine = SlowEngine()
    engine.gate = _gate
    return engine, "it counts"


if __name__ == "__main__":
    setattr(main, "make_engine", _make_engine)  # noqa: B010
    sys.exit(cli.main(["serve", *sys.argv[1:]]))
