"""librdkafka's mock cluster: brokers on real loopback ports that fail when they are told to.

Faults go in by ``ctypes``, through the library inside confluent-kafka's wheel: it exports what its own tests use.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import TracebackType
from typing import Self

import confluent_kafka
from confluent_kafka import cimpl

PRODUCE = 0
"""Kafka's number of the request that brings records."""
NOT_LEADER, TIMED_OUT, TOO_LARGE, TOPIC_FORBIDDEN, BAD_TIMESTAMP, AGAINST_POLICY = 6, 7, 10, 29, 32, 44
INVALID_RECORD = 87


def _library() -> ctypes.CDLL:
    """The library that the module has loaded already."""
    folder = Path(confluent_kafka.__file__).parent.with_name("confluent_kafka.libs")
    (path,) = folder.glob("librdkafka*.so*")
    return ctypes.CDLL(str(path))


class MockCluster:
    """One broker.

    A client of the library's own owns the cluster; a second handle on it is found by name in that client's memory, so
    the cluster is made here by hand instead, on a bare client.
    """

    def __init__(self) -> None:
        assert cimpl.version() is not None
        self._rd = rd = _library()
        rd.rd_kafka_new.restype = rd.rd_kafka_conf_new.restype = rd.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
        rd.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        self._client = ctypes.c_void_p(rd.rd_kafka_new(0, ctypes.c_void_p(rd.rd_kafka_conf_new()), None, 0))
        self._cluster = ctypes.c_void_p(rd.rd_kafka_mock_cluster_new(self._client, 1))
        assert self._cluster

    @property
    def bootstrap(self) -> str:
        found = self._rd.rd_kafka_mock_cluster_bootstraps(self._cluster)
        assert isinstance(found, bytes)
        return found.decode()

    def topic(self, name: str, partitions: int = 1) -> None:
        assert self._rd.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1) == 0

    def fail_next(self, *codes: int) -> None:
        """Answer the next produce requests with these errors, in turn."""
        errors = (ctypes.c_int * len(codes))(*codes)
        self._rd.rd_kafka_mock_push_request_errors_array(
            self._cluster, ctypes.c_int16(PRODUCE), ctypes.c_size_t(len(codes)), errors
        )

    def down(self) -> None:
        assert self._rd.rd_kafka_mock_broker_set_down(self._cluster, 1) == 0

    def up(self) -> None:
        assert self._rd.rd_kafka_mock_broker_set_up(self._cluster, 1) == 0

    def slow(self, rtt_ms: int) -> None:
        """Each answer takes so long."""
        assert self._rd.rd_kafka_mock_broker_set_rtt(self._cluster, 1, rtt_ms) == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rd.rd_kafka_mock_cluster_destroy(self._cluster)
        self._rd.rd_kafka_destroy(self._client)
