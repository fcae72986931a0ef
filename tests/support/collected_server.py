"""``tests.support.real_server``, which tells as it ends how many objects the collector walks through."""

from __future__ import annotations

import atexit
import gc
import json
import runpy
import sys


def _tell() -> None:
    told = {"event": "collector", "walked": len(gc.get_objects()), "spared": gc.get_freeze_count()}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    atexit.register(_tell)
    runpy.run_module("tests.support.real_server", run_name="__main__")
