"""The tables: what they refuse, and that every way to the present version leads to the same ones."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from sqlite3 import Connection

import pytest

from reflow import RunStatus, SQLiteStorage, StorageSchemaError
from reflow.storage._sql.tables import MIGRATIONS, VERSION
from reflow.testing.conformance.words import create, new_run

pytestmark = pytest.mark.anyio

INSERT = """insert into reflow_run (run_id, workflow, version, rules, status, priority, due_at, lease_id, executions,
    idle_claims, generation, cancel_requested, cancel_delivered, last_message, created_at, updated_at, input)
    values (?, 'w', 1, 1, ?, 0, 0, ?, 0, 0, 0, 0, 0, 0, 0, 0, x'')"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that does not exist yet."""
    return tmp_path / "test.db"


async def initialized(path: Path) -> None:
    """Bring a file up to the present version."""
    storage = SQLiteStorage(path)
    await storage.initialize()
    await storage.close()


def tables(path: Path) -> dict[str, str]:
    """Everything that is defined in a file, by name."""
    db = sqlite3.connect(path)
    found = dict(db.execute("select name, sql from sqlite_master where sql is not null").fetchall())
    db.close()
    return found


def version(path: Path) -> int:
    """The version that a file says it has."""
    db = sqlite3.connect(path)
    [(found,)] = db.execute("select version from reflow_schema").fetchall()
    db.close()
    return int(found)


def make_older(path: Path, number: int) -> None:
    """A file as Reflow left it at version `number`, with one run in it; none for 0: there were no tables yet."""
    db = sqlite3.connect(path, isolation_level=None)
    for statements in MIGRATIONS[:number]:
        for statement in statements:
            db.execute(statement)
    if number:
        db.execute("create table reflow_schema (version integer not null) strict")
        db.execute("insert into reflow_schema values (?)", (number,))
        db.execute(INSERT, ("kept", "pending", None))
    db.close()


@pytest.mark.parametrize("number", range(VERSION + 1))
async def test_a2_migrated_equals_fresh(file: Path, tmp_path: Path, number: int):
    """[187] A file of any older version, once initialized, has the same tables as a new one."""
    make_older(file, number)
    await initialized(file)
    await initialized(tmp_path / "fresh.db")

    assert (tables(tmp_path / "fresh.db"), VERSION) == (tables(file), version(file))


@pytest.mark.parametrize("number", range(1, VERSION + 1))
async def test_a2_migrating_loses_no_row(file: Path, number: int):
    """[187] A run that an older version stored is there after the migration, and can be claimed."""
    make_older(file, number)
    storage = SQLiteStorage(file)
    await storage.initialize()

    claimed = await storage.claim_runs([("w", 1)], limit=1, lease_id="first", now=0, lease_until=1)

    assert ["kept"] == [row.run_id for row in claimed.runs]
    await storage.close()


@pytest.mark.parametrize("newer", [VERSION + 1, VERSION + 100])
@pytest.mark.parametrize("mode", ["wal", "delete"])
async def test_a2_newer_tables_are_left_alone(file: Path, newer: int, mode: str):
    """A file that a newer Reflow wrote raises an error that names both versions, and stays as it is byte for byte."""
    await initialized(file)
    db = sqlite3.connect(file, isolation_level=None)
    db.execute("update reflow_schema set version = ?", (newer,))
    db.execute(f"pragma journal_mode = {mode}")
    db.close()
    before = file.read_bytes()

    with pytest.raises(StorageSchemaError) as caught:
        await initialized(file)

    assert "initialize" == caught.value.verb
    assert f"schema {newer}" in str(caught.value)
    assert f"up to {VERSION})" in str(caught.value)
    assert (before, [file]) == (file.read_bytes(), list(file.parent.iterdir()))


async def test_a2_a_failed_migration_changes_nothing(file: Path):
    """Where a statement of a migration fails, nothing of it remains, and the next attempt finds the file as it was."""
    db = sqlite3.connect(file)
    db.execute("create table reflow_timer (not_ours)")
    db.close()

    for _ in range(2):
        with pytest.raises(Exception, match="table reflow_timer already exists"):
            await initialized(file)

    assert {"reflow_timer": "CREATE TABLE reflow_timer (not_ours)"} == tables(file)


async def test_every_table_is_strict_and_ours(file: Path):
    """Every table is STRICT, and every name begins with `reflow_`, so that Reflow may live beside other tables."""
    await initialized(file)
    db = sqlite3.connect(file)
    listed = db.execute(
        "select name, strict from pragma_table_list where schema = 'main' and type = 'table'"
    ).fetchall()
    db.close()

    assert [] == [name for name, strict in listed if not name.startswith("sqlite_") and not strict]
    assert [] == [name for name in tables(file) if not name.startswith("reflow_")]


@pytest.fixture
async def db(file: Path, anyio_backend: str):
    """A connection to a file with our tables."""
    await initialized(file)
    db = sqlite3.connect(file, isolation_level=None)
    yield db
    db.close()


@pytest.mark.parametrize("status", [*RunStatus, "", "PENDING", "paused", "pending ", None])
async def test_the_statuses_of_the_table_are_those_of_the_enum(db: Connection, status: str | None):
    """A row may have every status of RunStatus and no other, whoever writes it."""
    lease_id = "l" if status == RunStatus.RUNNING else None
    try:
        db.execute(INSERT, ("r", status, lease_id))
        accepted = True
    except sqlite3.IntegrityError:
        accepted = False

    assert (status in set(RunStatus)) == accepted


@pytest.mark.parametrize("status", RunStatus)
@pytest.mark.parametrize("lease_id", ["l", None])
async def test_a_lease_means_running(db: Connection, status: RunStatus, lease_id: str | None):
    """The table refuses a running run without a lease, and a lease of any other run."""
    try:
        db.execute(INSERT, ("r", status, lease_id))
        accepted = True
    except sqlite3.IntegrityError:
        accepted = False

    assert ((status is RunStatus.RUNNING) == (lease_id is not None)) == accepted


async def test_an_unknown_status_is_named(file: Path, db: Connection):
    """A status that this version does not know, written past the constraint, is named and not guessed at."""
    db.execute("pragma ignore_check_constraints = on")
    db.execute(INSERT, ("r", "paused", None))
    storage = SQLiteStorage(file)
    await storage.initialize()

    with pytest.raises(Exception, match="run 'r' has the unknown status 'paused'"):
        await storage.get_run("r")

    assert (await create(storage, new_run("other")))[1]
    await storage.close()
