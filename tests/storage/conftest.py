"""`another` makes adapters of each kind, all on the same data, empty at first."""

from __future__ import annotations

from pathlib import Path

import pytest

from reflow import MemoryStorage, SQLiteStorage
from reflow.testing.conformance import Another


@pytest.fixture(params=["memory", "sqlite"])
def another(request: pytest.FixtureRequest, tmp_path: Path) -> Another:
    """Makes adapters on the same data; they are not initialized."""
    if request.param == "memory":
        memory = MemoryStorage()
        return lambda: memory
    return lambda: SQLiteStorage(tmp_path / "test.db", durability="process")
