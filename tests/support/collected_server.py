"""``tests.support.real_server``, which tells as it ends how many objects the collector walks through."""

from __future__ import annotations

import gc
import json
import runpy
import sys

_unfreeze = gc.unfreeze


def _tell_and_unfreeze() -> None:
    told = {"event": "collector", "walked": len(gc.get_objects()), "spared": gc.get_freeze_count()}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    _unfreeze()


if __name__ == "__main__":
    gc.unfreeze = _tell_and_unfreeze  # the server's last deed
    runpy.run_module("tests.support.real_server", run_name="__main__")
