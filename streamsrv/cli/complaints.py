"""How a verb ends: the exit codes, and errors as a person wants to read them."""

from __future__ import annotations

import sys
from typing import Final

from streamsrv.errors import StreamsrvError

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
SETUP: Final = 3


def complain(error: StreamsrvError) -> None:
    """Say on stderr what is wrong and what helps."""
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"remedy: {error.hint}", file=sys.stderr)
