"""Values that are too large for a real database: said by the driver, and heard by the engine."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from anyio import fail_after

from reflow import (
    Engine,
    Flow,
    PostgresStorage,
    RunFailedError,
    SQLiteStorage,
    StepFailedError,
    StorageValueError,
    step,
    transaction,
    workflow,
)
from reflow.storage._postgres import connection
from reflow.testing.conformance.words import entry, hold, progress
from tests.storage.test_sqlite import writer_of
from tests.support.postgres.outside import Outside, outside
from tests.support.postgres.schemas import Place

pytestmark = pytest.mark.anyio

MOST_BYTES = 1_000_000
# Of random letters, so that no compression makes it fit.
LONG_ID = "".join(random.Random(5).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=9_000))


REFUSE = f"""create function refuse() returns trigger language plpgsql as $$ begin
    if length(new.payload) > {MOST_BYTES} then raise exception 'too long' using errcode = '22001'; end if;
    return new; end $$"""


async def large(calls: list[str]) -> bytes:
    """A result that is too large."""
    calls.append("large")
    return bytes(3 * MOST_BYTES)


@workflow
def child() -> Flow[None]:
    """A child that does nothing."""
    return
    yield


@workflow
def with_a_long_id() -> Flow[None]:
    """Starts a child whose id no index of Postgres takes."""
    yield child().options(run_id=LONG_ID)


def caught(calls: list[str]) -> Any:
    """A workflow that goes on without the result that is too large."""

    async def body() -> bytes:
        return await large(calls)

    @workflow
    def flow() -> Flow[str]:
        try:
            yield step(body)
        except StepFailedError as error:
            return error.error_type
        return "stored"

    return flow


async def test_a_blob_that_is_too_large_for_sqlite(tmp_path: Path):
    """A step whose result is larger than SQLite takes fails, and its body runs once."""
    calls: list[str] = []
    flow = caught(calls)
    storage = SQLiteStorage(tmp_path / "data.db")
    async with Engine(storage, [flow]) as engine:
        writer_of(storage).setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
        with fail_after(20):
            assert "SerializationError" == await engine.execute(flow())

    assert ["large"] == calls


async def test_a_transaction_whose_result_is_too_large(tmp_path: Path):
    """A transaction whose result SQLite does not take fails, and is not called again and again."""
    calls: list[str] = []

    def body(connection: sqlite3.Connection) -> bytes:
        calls.append("body")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
        return bytes(3 * MOST_BYTES)

    @workflow
    def flow() -> Flow[str]:
        try:
            yield transaction(body)
        except StepFailedError as error:
            return error.error_type
        return "stored"

    async with Engine(SQLiteStorage(tmp_path / "data.db"), [flow]) as engine:
        with fail_after(20):
            assert "StorageValueError" == await engine.execute(flow())

    assert ["body"] == calls


async def test_a_value_that_postgres_refuses(untouched: Place):
    """A step whose result the server does not take for a value fails, and its body runs once."""
    calls: list[str] = []
    flow = caught(calls)
    storage = PostgresStorage(untouched.dsn, schema=untouched.schema)
    async with Engine(storage, [flow]) as engine:
        with outside(untouched) as beside:
            beside(REFUSE)
            beside("create trigger refuse before insert on entry for each row execute function refuse()")
        with fail_after(20):
            assert "SerializationError" == await engine.execute(flow())

    assert ["large"] == calls


@pytest.mark.parametrize("size", [10, 5_000])
async def test_a_message_that_makes_the_server_hang_up(
    adapter: PostgresStorage, beside: Outside, monkeypatch: pytest.MonkeyPatch, size: int
):
    """Where the connection breaks at a message of a size that the server does not take, the value is too large; at any
    other, it is tried again and stored."""
    monkeypatch.setattr(connection, "_LARGEST_MESSAGE", 1_000)
    write = progress(await hold(adapter), entries=[entry("0", payload=bytes(size))])
    assert beside.terminate()

    if size < 1_000:
        assert await adapter.save_progress(write)
    else:
        with pytest.raises(StorageValueError, match="too many for one statement"):
            await adapter.save_progress(write)


async def test_an_id_that_is_too_long_for_an_index(place: Place):
    """A run that starts a child whose id is too long for an index of Postgres fails with the error of the storage."""
    async with Engine(PostgresStorage(place.dsn, schema=place.schema), [with_a_long_id, child]) as engine:
        with pytest.raises(RunFailedError, match="index row") as failed, fail_after(20):
            await engine.execute(with_a_long_id())
        with pytest.raises(StorageValueError, match="index row"):
            await engine.enqueue(child(), run_id=LONG_ID)

    assert "storage_value" == failed.value.failure.code
