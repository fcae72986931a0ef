"""What lies in a node's spool, as the ledger writes it down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from streamsrv.runtime.spooling import lines
from streamsrv.runtime.spooling.page import SUFFIX
from tests.adversity.runs.ledger import Spooled


def spooled_in(data: Path) -> Iterator[Spooled]:
    """Finals in the spool of a data directory, read as the next start would; a file that goes meanwhile is stored."""
    for path in sorted((data / "spool").glob(f"*{SUFFIX}")):
        try:
            found = lines.read(path.read_bytes())
        except FileNotFoundError:
            continue
        for entry in (*found.sound, *found.behind):
            if (final := entry.final) is not None:
                yield Spooled(
                    stream=entry.key.stream,
                    epoch=entry.key.epoch,
                    channel=final.channel,
                    segment=final.segment,
                    text=final.text,
                )
