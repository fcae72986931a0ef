"""What a session puts into the numbers."""

from __future__ import annotations

from streamsrv import events
from streamsrv.events import AnyEvent
from streamsrv.telemetry import Metrics


class Tally:
    """Counts one session.

    Args:
        metrics: the server's.
        background: a file is no session anybody waits for: its latencies would hide those of live speech.
    """

    def __init__(self, metrics: Metrics, *, background: bool) -> None:
        self._metrics = None if background else metrics
        if self._metrics is not None:
            self._metrics.sessions.inc()

    def said(self, event: AnyEvent) -> None:
        """The session told its peer."""
        if self._metrics is None:
            return
        if isinstance(event, events.Partial):
            self._metrics.partials.inc()
            self._metrics.partial_lag.observe(event.lag_ms / 1000)
        elif isinstance(event, events.Final):
            self._metrics.finals.labels(event.cause).inc()
            self._metrics.final_latency.observe(event.latency_ms / 1000)
            self._metrics.endpoint.observe(event.endpoint_ms / 1000)

    def degraded(self, reason: str, active: bool) -> None:
        """One more reason why it is served below its promise, or one less."""
        if self._metrics is not None:
            self._metrics.degraded.inc(1 if active else -1)
            self._metrics.store_errors.inc(active and reason == "store")

    def left(self, outcome: str, audio_s: float) -> None:
        """The session is over, after so much audio; call once."""
        if self._metrics is not None:
            self._metrics.sessions.dec()
            self._metrics.audio_seconds.inc(max(0.0, audio_s))
            self._metrics.sessions_ended.labels(outcome).inc()
