"""Write the golden conversations anew: ``python -m tests.golden.record``."""

from __future__ import annotations

from pathlib import Path

from tests.golden.scenarios import SCENARIOS, play
from tests.golden.tape import write

if __name__ == "__main__":
    for name in SCENARIOS:
        write(Path(__file__).parent / f"{name}.jsonl", play(name))
