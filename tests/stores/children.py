"""Real processes that use a store, for tests that kill them.  ``python -m tests.stores.children VERB DATA_DIR``."""

# ruff: noqa: ASYNC240 -- small local files; nobody else is on these loops
from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from streamsrv.errors import StoreUnavailable
from streamsrv.stores.base import Anchor
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.stores.builders import NOW_MS, begin, final, token

ROOT = Path(__file__).parents[2]


class Child:
    """A child process that writes lines."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.stores.children", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            close_fds=False,
        )

    def line(self) -> str:
        """The next line, without its end; empty when the child is gone."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def rest(self) -> list[str]:
        """All whole lines until the child is gone."""
        assert self._process.stdout is not None
        return [line[:-1] for line in self._process.stdout if line.endswith("\n")]

    def kill(self, with_signal: signal.Signals) -> None:
        self._process.send_signal(with_signal)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextlib.contextmanager
def child(*arguments: str) -> Iterator[Child]:
    process = Child(*arguments)
    try:
        yield process
    finally:
        process.end()


def _say(line: object) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _hold(data_dir: str) -> None:
    """Take the server's role, until killed."""
    await SqliteStore(SqliteSettings(data_dir=data_dir)).open()
    _say("open")
    await asyncio.Event().wait()


async def _write(data_dir: str) -> None:
    """Keep finals and progress, from several callers at once, saying each segment that was acknowledged."""
    store = SqliteStore(SqliteSettings(data_dir=data_dir))
    await store.open()
    await begin(store)
    resumed = await store.resume_stream("s1", token("s1"), now_ms=NOW_MS)
    following = iter(range(resumed.starts[0].next_segment, 1_000_000))

    async def finals() -> None:
        for segment in following:
            if await store.keep_final(resumed.key, final(segment)):
                _say(segment)

    async def progress() -> None:
        position = 0
        while True:
            position += 1_920
            await store.keep_progress(resumed.key, (position,), (Anchor(position=position, utc_ms=NOW_MS),))

    await asyncio.gather(progress(), *(finals() for _ in range(8)))


async def _limited(data_dir: str) -> None:
    """Keep finals while the system lets no file grow, then again when it does; says what happened."""
    store = SqliteStore(SqliteSettings(data_dir=data_dir))
    await store.open()
    _, key = await begin(store)
    _say(await store.keep_final(key, final(0)))
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    size = store.path.with_name(store.path.name + "-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    answers = await asyncio.gather(*(store.keep_final(key, final(n)) for n in range(1, 6)), return_exceptions=True)
    _say({type(answer) for answer in answers} == {StoreUnavailable})
    _say([kept.final.segment for kept in await store.finals("talk")])
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    _say(all(await asyncio.gather(*(store.keep_final(key, final(n)) for n in range(1, 6)))))
    _say([kept.final.segment for kept in await store.finals("talk")])
    await store.close()


async def _fds(data_dir: str) -> None:
    """Which open files lie in the data directory."""
    found = []
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(fd))
    _say([name for name in found if name.startswith(data_dir)])


_VERBS = {"hold": _hold, "write": _write, "limited": _limited, "fds": _fds}

if __name__ == "__main__":
    asyncio.run(_VERBS[sys.argv[1]](sys.argv[2]))
