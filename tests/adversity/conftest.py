"""Every test here is an attack or a fault against a running server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.adversity.arena import Arena, arena

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.adversity)


@pytest.fixture
async def ring(tmp_path: Path) -> AsyncIterator[Arena]:
    """A server with its defaults, checked afterwards."""
    async with arena(tmp_path) as ring:
        yield ring
