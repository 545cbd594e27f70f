"""`storage` is an open adapter of each kind; `another` makes further ones on the same data."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from reflow import MemoryStorage, SQLiteStorage, StorageAdapter

pytest.register_assert_rewrite("tests.storage.cases")

from tests.storage.cases.words import opened  # noqa: E402


@pytest.fixture(params=["memory", "sqlite"])
def another(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], StorageAdapter]:
    """Makes adapters on the same data; they are not initialized."""
    if request.param == "memory":
        memory = MemoryStorage()
        return lambda: memory
    return lambda: SQLiteStorage(tmp_path / "test.db", durability="process")


@pytest.fixture
async def storage(another: Callable[[], StorageAdapter], anyio_backend: str) -> AsyncIterator[StorageAdapter]:
    """An adapter that is open and empty."""
    async with opened(another()) as adapter:
        yield adapter
