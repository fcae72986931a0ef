"""Why an event loop came late to an alarm: where its thread was meanwhile."""

from __future__ import annotations

import gc
import os
from time import perf_counter
from typing import Self

import msgspec

LONG_MS = 15.0
"""Stalls from here on are explained."""
MOST_LONG = 100
"""So many between two looks."""


class LongStall(msgspec.Struct, frozen=True, kw_only=True):
    """The event loop came late to an alarm, and where its thread was meanwhile; the rest it waited for the lock of
    the interpreter, or for a call."""

    late_ms: float
    running_ms: float
    """On a core; with what others took of that core."""
    queued_ms: float
    """Ready to run, without a core."""
    collecting_ms: float
    """While the collector walked, in any thread."""


class Whereabouts:
    """Where the time of the thread that made it goes, for stalls to be explained."""

    def __enter__(self) -> Self:
        self._schedule = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        self._collected_s = self._collecting_at = 0.0
        gc.callbacks.append(self._collect)
        self._last = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._collect)
        os.close(self._schedule)

    def since(self) -> dict[str, float]:
        """Milliseconds, of each kind in ``LongStall``, since the last call."""
        last, self._last = self._last, self._now()
        return {name: round(1000 * (now - last[name]), 1) for name, now in self._last.items()}

    def _now(self) -> dict[str, float]:
        ran_ns, queued_ns, _ = map(int, os.pread(self._schedule, 100, 0).split())
        return {"running_ms": ran_ns / 1e9, "queued_ms": queued_ns / 1e9, "collecting_ms": self._collected_s}

    def _collect(self, phase: str, _: dict[str, int]) -> None:
        """Whichever thread collects: all wait."""
        if phase == "start":
            self._collecting_at = perf_counter()
        else:
            self._collected_s += perf_counter() - self._collecting_at
