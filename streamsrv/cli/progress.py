"""A progress bar on a terminal; elsewhere it says nothing."""

from __future__ import annotations

from typing import TextIO

WIDTH = 30


class Bar:
    """One line that is written over and over.

    Args:
        stream: usually stderr, so that what is printed stays clean.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = stream.isatty()
        self._line = ""

    def show(self, what: str, done: float, total: float | None, rest: str = "") -> None:
        """Show how far it is; without a total only what is done."""
        if not self._shown:
            return
        line = f"{what}  {_bar(done, total)}  {rest}".rstrip()
        if line != self._line:
            self._stream.write(f"\r\x1b[2K{line}")
            self._stream.flush()
            self._line = line

    def clear(self) -> None:
        """Take the line away."""
        if self._shown and self._line:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
            self._line = ""


def _bar(done: float, total: float | None) -> str:
    if not total:
        return f"{done:.0f}"
    share = min(1.0, max(0.0, done / total))
    full = round(share * WIDTH)
    return f"[{'#' * full}{'.' * (WIDTH - full)}] {share:4.0%}"
