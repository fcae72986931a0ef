"""A database of its own for each test.

The driver leaves a socket that was still connecting when its client was closed to the garbage collector, which
complains; here the complaint is called forth where it is expected, and everything else still fails a test.
"""

from __future__ import annotations

import gc
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from streamsrv.stores.mongo.settings import MongoSettings


@pytest.fixture
def settings(mongo_url: str) -> MongoSettings:
    return MongoSettings(url=mongo_url, database=f"streamsrv_test_{secrets.token_hex(6)}")


@pytest.fixture
async def database(settings: MongoSettings) -> AsyncIterator[AsyncDatabase[dict[str, Any]]]:
    """The same, to look at with nothing of ours in between; dropped at the end."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(settings.url)
    async with client:
        yield client[settings.database]
        await client.drop_database(settings.database)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    unconnected = "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(unconnected))


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()
