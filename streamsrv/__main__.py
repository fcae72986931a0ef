"""``python -m streamsrv``."""

from __future__ import annotations

import sys

from streamsrv.cli import main

if __name__ == "__main__":
    sys.exit(main())
