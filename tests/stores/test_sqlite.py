"""The SQLite store keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamsrv.stores.sqlite import SqliteSettings, SqliteStore
from tests.stores.contract import Make, StoreContract


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return lambda: SqliteStore(SqliteSettings(data_dir=str(tmp_path / "data")))
