"""Threads that decode into a Struct for the first time at the same time."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import msgspec

from streamsrv import structs

CROWD = """
import sys, threading, msgspec
from streamsrv import structs

sys.setswitchinterval(1e-6)
FIELDS = "".join(f"    f{n}: 'Annotated[int, msgspec.Meta(ge=0)] | None' = None\\n" for n in range(30))
for _ in range(200):
    exec("import msgspec\\nfrom typing import Annotated\\n"
         "class Inner(msgspec.Struct):\\n" + FIELDS +
         "class Outer(msgspec.Struct):\\n    inner: 'Inner'\\n" + FIELDS, globals())
    structs.learn()
    together = threading.Barrier(3)
    def decode():
        together.wait()
        assert msgspec.convert({"inner": {"f1": 1}, "f3": 3}, Outer).inner.f1 == 1
    threads = [threading.Thread(target=decode) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


OPENED = """
import asyncio, sys
from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from streamsrv.stores.sqlite.rows import StreamRow
from tests.test_structs import known

async def main():
    assert not known(StreamRow), "else this proves nothing"
    store = SqliteStore(SqliteSettings(data_dir=sys.argv[1]))
    await store.open()
    await store.close()
    assert known(StreamRow)

asyncio.run(main())
"""


def known(kind: type[msgspec.Struct]) -> bool:
    """Whether msgspec has learnt its fields: it keeps them with the class."""
    return any(type(one).__name__ == "StructInfo" for one in gc.get_referents(kind))


def run(code: str, *words: str) -> None:
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_learnt_is_safe() -> None:
    """Without it most such processes end with SIGSEGV; those whose threads take turns do not."""
    run(CROWD)


def test_what_is_defined_later_is_learnt_later() -> None:
    class Late(msgspec.Struct):
        text: str = ""

    assert not known(Late)
    structs.learn()
    assert known(Late)


def test_an_open_store_knows_its_rows(tmp_path: Path) -> None:
    run(OPENED, str(tmp_path))
