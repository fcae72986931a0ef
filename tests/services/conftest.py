"""The services as fixtures: one of each for all tests, at an address of your own choice when the environment names one.

``MONGO_URL``, ``REDIS_URL`` and ``KAFKA_BOOTSTRAP`` put another server in place of the one started here; the tests use
databases, keys and topics of their own on it.  Tests that stop, pause or kill a server start their own; where that is
MongoDB, and another is named, they cut that one off instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.services.servers import KafkaServer, Mongo, MongoServer, RedisServer, Server, mongo_server


def _url(variable: str, kind: Callable[[Path], Server], factory: pytest.TempPathFactory) -> Iterator[str]:
    if named := os.environ.get(variable):
        yield named
        return
    with kind(factory.mktemp(variable.lower())) as server:
        yield server.start().url


@pytest.fixture(scope="session")
def mongo_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from _url("MONGO_URL", MongoServer, tmp_path_factory)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from _url("REDIS_URL", RedisServer, tmp_path_factory)


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from _url("KAFKA_BOOTSTRAP", KafkaServer, tmp_path_factory)


@pytest.fixture
def own_mongo(tmp_path: Path) -> Iterator[Mongo]:
    """A server that the test may kill."""
    with mongo_server(tmp_path / "mongo") as server:
        yield server.start()
        server.forget(server.database)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may kill."""
    with RedisServer(tmp_path / "redis") as server:
        yield server.start()


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[KafkaServer]:
    """A server that the test may kill."""
    with KafkaServer(tmp_path / "kafka") as server:
        yield server.start()
