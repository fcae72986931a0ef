"""What ``/metrics`` tells about the outbox; labels are the names of the sinks in use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from streamsrv.sinks.base import Outcome
from streamsrv.stores.handoff import Handoff, SinkFigures

_LAG_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0, 86_400.0)


class Numbers:
    """The numbers of all sinks."""

    def __init__(self, registry: CollectorRegistry, sinks: Iterable[str]) -> None:
        self._sinks = tuple(sinks)
        label = ["sink"]
        self._handed = Counter("streamsrv_outbox_handed", "Events a sink has taken.", label, registry=registry)
        self._failures = Counter(
            "streamsrv_outbox_failures",
            "Batches a sink has not taken: refused, unknown (perhaps it has) or unavailable.",
            ["sink", "verdict"],
            registry=registry,
        )
        self._lag = Histogram(
            "streamsrv_outbox_lag_seconds",
            "From an event being stored to a sink having it.",
            label,
            buckets=_LAG_S,
            registry=registry,
        )
        self._pending = Gauge("streamsrv_outbox_pending", "Events that wait for a sink.", label, registry=registry)
        self._oldest = Gauge(
            "streamsrv_outbox_oldest_seconds", "Age of the oldest event that waits.", label, registry=registry
        )
        self._dead = Gauge("streamsrv_outbox_dead", "Events a sink will not take.", label, registry=registry)
        for sink in self._sinks:
            self._handed.labels(sink)
            self._lag.labels(sink)
            for verdict in ("refused", "unknown", "unavailable"):
                self._failures.labels(sink, verdict)

    def sent(self, sink: str, outcome: Outcome, handed: Sequence[Handoff], now_ms: int) -> None:
        """A batch was sent, and of it these were taken."""
        self._handed.labels(sink).inc(len(handed))
        lag = self._lag.labels(sink)
        for handoff in handed:
            lag.observe(max(0, now_ms - handoff.stored_ms) / 1000)
        if outcome.verdict != "taken":
            self._failures.labels(sink, outcome.verdict).inc()

    def show(self, figures: Iterable[SinkFigures], now_ms: int) -> None:
        """What the store says of each sink; those it does not name have nothing waiting."""
        known = {one.sink: one for one in figures}
        for sink in self._sinks:
            one = known.get(sink) or SinkFigures(sink=sink, pending=0, oldest_ms=None, dead=0)
            self._pending.labels(sink).set(one.pending)
            self._dead.labels(sink).set(one.dead)
            self._oldest.labels(sink).set(0 if one.oldest_ms is None else max(0.0, (now_ms - one.oldest_ms) / 1000))
