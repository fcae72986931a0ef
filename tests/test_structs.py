"""Threads that decode into a Struct for the first time at the same time."""

from __future__ import annotations

import subprocess
import sys

import pytest

CROWD = """
import sys, threading, msgspec
from streamsrv import structs

sys.setswitchinterval(1e-6)
FIELDS = "".join(f"    f{n}: 'Annotated[int, msgspec.Meta(ge=0)] | None' = None\\n" for n in range(30))
for _ in range(200):
    exec("import msgspec\\nfrom typing import Annotated\\n"
         "class Inner(msgspec.Struct):\\n" + FIELDS +
         "class Outer(msgspec.Struct):\\n    inner: 'Inner'\\n" + FIELDS, globals())
    if LEARN:
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


@pytest.mark.parametrize("learn", [True, False])
def test_what_is_learnt_is_safe(learn: bool) -> None:
    code = CROWD.replace("LEARN", str(learn))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if learn:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == -11, "this msgspec learns safely: streamsrv/structs.py can go"
