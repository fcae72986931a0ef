"""The numbers of shared state, in the server's registry."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class Numbers:
    """``what``: published, received, dropped (never sent), missed (gaps found in what others sent), unreadable."""

    def __init__(self, registry: CollectorRegistry) -> None:
        messages = Counter(
            "streamsrv_shared_messages", "Messages between nodes, by what became of them.", ["what"], registry=registry
        )
        self.published = messages.labels("published")
        self.received = messages.labels("received")
        self.dropped = messages.labels("dropped")
        self.missed = messages.labels("missed")
        self.unreadable = messages.labels("unreadable")
        self.degraded = Gauge(
            "streamsrv_shared_degraded", "1 while other nodes are not reached as they should be.", registry=registry
        )
        self.reconnects = Counter(
            "streamsrv_shared_reconnects", "Times shared state came back after it was away.", registry=registry
        )
