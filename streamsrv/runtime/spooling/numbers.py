"""What ``/metrics`` tells of the spool."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter, Gauge

from streamsrv.telemetry import Metrics


class Numbers:
    """The spool's numbers; the gauges are asked when somebody looks.

    Args:
        finals, size, age_s, aside: tell how many finals and bytes wait, for how long the oldest does, and how many
            damaged files lie aside.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        finals: Callable[[], float],
        size: Callable[[], float],
        age_s: Callable[[], float],
        aside: Callable[[], float],
    ) -> None:
        gauges = (
            ("streamsrv_spool_finals", "Finals in this node's spool that wait for the store.", finals),
            ("streamsrv_spool_bytes", "Bytes of the spool, damaged files included.", size),
            ("streamsrv_spool_oldest_seconds", "For how long the oldest entry of the spool waits.", age_s),
            ("streamsrv_spool_damaged_files", "Damaged files in the spool that an operator should look at.", aside),
        )
        for name, text, ask in gauges:
            Gauge(name, text, registry=metrics.registry).set_function(ask)
        self.drained = Counter(
            "streamsrv_spool_drained",
            "Spooled finals of sessions that are over, by outcome: stored, or refused because a newer connection has "
            "the stream or the interview was deleted.",
            ["outcome"],
            registry=metrics.registry,
        )
        self.failures = Counter(
            "streamsrv_spool_failures", "Times the spool's disk failed or was full.", registry=metrics.registry
        )
