"""The MongoDB store keeps both halves of the contract, against a real server."""

from __future__ import annotations

import pytest

from streamsrv.stores.handoff import Store
from streamsrv.stores.mongo.settings import MongoSettings
from streamsrv.stores.mongo.store import MongoStore
from tests.stores.contract import Make, StoreContract
from tests.stores.contract_outbox import MakeStore, OutboxContract

pytestmark = pytest.mark.usefixtures("database")


class TestMongoStore(StoreContract):
    @pytest.fixture
    def make(self, settings: MongoSettings) -> Make:
        return lambda: MongoStore(settings, node="n-test")


class TestMongoOutbox(OutboxContract):
    @pytest.fixture
    def make(self, settings: MongoSettings) -> MakeStore:
        return lambda: MongoStore(settings, node="n-test")


async def test_it_is_a_store(settings: MongoSettings) -> None:
    store: Store = MongoStore(settings)
    await store.close()
