"""Troubles that come again and again: told at first, at most once a minute while they last, and when they are over."""

from __future__ import annotations

import time
from collections.abc import Callable

from streamsrv.telemetry import Field, Level, Logger

AGAIN_S = 60.0
"""Least time between two lines about one trouble, whether it went on or came back meanwhile."""


class Ongoing:
    """One kind of trouble of one owner.

    Args:
        log: where lines go.
        event: what it is called while it lasts; the line has ``times``, how often it came since the line before.
        over: what its end is called; told only when its beginning was.
        level: of the lines while it lasts.
        now: monotonic seconds.
    """

    __slots__ = ("_event", "_level", "_log", "_now", "_open", "_over", "_quiet_until", "_times", "at")

    def __init__(
        self,
        log: Logger,
        event: str,
        *,
        over: str,
        level: Level = "warning",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._event = event
        self._over = over
        self._level: Level = level
        self._now = now
        self._times = 0
        self.at = float("-inf")
        """When it was seen last, monotonic seconds."""
        self._quiet_until = float("-inf")
        self._open = False

    def came(self, error: BaseException | str, **fields: Field) -> None:
        """It happened, perhaps again."""
        self._times += 1
        self.at = now = self._now()
        if now < self._quiet_until:
            return
        self._log.log(self._level, self._event, error=error, **fields, times=self._times)
        self._times = 0
        self._quiet_until = now + AGAIN_S
        self._open = True

    def seen(self) -> None:
        """It is there, found by somebody whose business it is not to tell."""
        self.at = self._now()

    def passed(self) -> None:
        """What was in trouble went well."""
        if self._open:
            self._log.info(self._over, times=self._times)
            self._open, self._times = False, 0
