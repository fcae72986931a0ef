"""What a session may acknowledge, and which flushes wait for their finals."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from streamsrv import events
from streamsrv.facts import Position
from streamsrv.session.channel import Channel
from streamsrv.session.effects import AnyEffect, Note, Say
from streamsrv.session.settings import MachineSettings

MAX_FLUSHES = 64
"""Flushes waiting for their finals; further ones are answered together with the newest."""


class Progress:
    """Notes restart points in the store once a second, acknowledges what the store has.

    Args:
        settings: how often.
        channels: looked at, and moved on by what is noted.
        now: monotonic seconds.
    """

    def __init__(self, settings: MachineSettings, channels: Sequence[Channel], now: float) -> None:
        self._settings = settings
        self._channels = channels
        self._flushes: deque[list[int]] = deque()
        self._noting = False
        self._acked_at = now

    @property
    def flushing(self) -> bool:
        """Whether a flush waits for its finals."""
        return bool(self._flushes)

    def flush(self) -> None:
        """All segments that have begun and ended by now are asked for."""
        self._flushes.append([c.next_segment - (c.open is not None) for c in self._channels])
        if len(self._flushes) > MAX_FLUSHES:
            self._flushes.popleft()

    def flushed(self) -> list[AnyEffect]:
        """Answer the flushes whose finals were all said, together."""
        answered = False
        while self._flushes and self._said_all(self._flushes[0]):
            self._flushes.popleft()
            answered = True
        return [Say(event=events.Ack(position=self._acknowledged, flushed=True))] if answered else []

    def due(self, now: float) -> list[AnyEffect]:
        """Once a second: store what may be acknowledged, or say that nothing moved."""
        if now < self._acked_at + self._settings.ack_every_s:
            return []
        if self._noting:  # the store lets us wait; the peer hears that nothing moved
            return self._ack(now)
        for channel in self._channels:
            channel.acknowledge()
        if all(channel.safe == channel.noted for channel in self._channels):
            return self._ack(now)
        self._noting = True
        self._acked_at = now
        return [Note(restarts=tuple(channel.safe for channel in self._channels))]

    def noted(self, restarts: Sequence[Position], now: float) -> list[AnyEffect]:
        """The store knows these restart points."""
        self._noting = False
        for channel, restart in zip(self._channels, restarts, strict=True):
            channel.noted = restart
        return self._ack(now)

    @property
    def _acknowledged(self) -> Position:
        return min(channel.noted for channel in self._channels)

    def _ack(self, now: float) -> list[AnyEffect]:
        self._acked_at = now
        return [Say(event=events.Ack(position=self._acknowledged))]

    def _said_all(self, upto: Sequence[int]) -> bool:
        pairs = zip(self._channels, upto, strict=True)
        return all(not channel.waiting or channel.waiting[0].number >= number for channel, number in pairs)
