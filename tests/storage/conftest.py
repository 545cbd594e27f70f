"""`another` makes adapters of each kind, all on the same data, empty at first."""

from __future__ import annotations

from pathlib import Path

import pytest

from reflow import MemoryStorage, SQLiteStorage
from reflow.testing.conformance import Another


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def another(request: pytest.FixtureRequest, tmp_path: Path) -> Another:
    """Makes adapters on the same data; they are not initialized."""
    if request.param == "memory":
        memory = MemoryStorage()
        return lambda: memory
    if request.param == "postgres":
        import secrets

        from reflow.storage.postgres import PostgresStorage

        schema = "rf_test_" + secrets.token_hex(4)
        return lambda: PostgresStorage("host=/tmp/pgdev user=postgres dbname=postgres", schema=schema)
    return lambda: SQLiteStorage(tmp_path / "test.db", durability="process")
