"""A database of its own for each test."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
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
