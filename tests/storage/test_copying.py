"""Copying at the level of tables: one moment of the source, all or nothing in the target, and compared."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import pytest

from reflow import SQLiteStorage, StorageError
from reflow.storage._sql.copying import TABLES, Row, copy
from reflow.storage._sqlite.copying import SQLiteTables, reading, writing
from reflow.testing.conformance.words import create, new_run

pytestmark = pytest.mark.anyio


@pytest.fixture
async def source(tmp_path: Path) -> Path:
    """A file with three runs, of which two have a tag."""
    path = tmp_path / "source.db"
    storage = SQLiteStorage(path)
    await storage.initialize()
    await storage.create_runs([new_run("a"), new_run("b", tags=("x",)), new_run("c", tags=("x",))])
    await storage.close()
    return path


def run_ids(path: Path) -> list[str]:
    """The runs that a file has."""
    db = sqlite3.connect(path)
    rows = db.execute("select run_id from reflow_run order by id").fetchall()
    db.close()
    return [run_id for (run_id,) in rows]


async def test_every_table_is_listed(source: Path):
    """All tables of the schema are copied, but for the one that has its version."""
    db = sqlite3.connect(source)
    there = {name for (name,) in db.execute("select name from sqlite_master where type = 'table'")}
    db.close()

    assert there - {"reflow_schema"} == set(TABLES)


async def test_a_copy_is_of_one_moment(source: Path, tmp_path: Path):
    """What is written to the source while it is copied is not in the copy, not even in part."""
    with reading(source) as tables:
        storage = SQLiteStorage(source)
        await storage.initialize()
        await create(storage, new_run("d", tags=("x",)))
        await storage.close()
        with writing(tmp_path / "target.db") as target:
            counts = copy(tables, target)

    assert (3, 2) == (counts["reflow_run"], counts["reflow_tag"])
    assert (["a", "b", "c"], ["a", "b", "c", "d"]) == (run_ids(tmp_path / "target.db"), run_ids(source))


class Forgetful(SQLiteTables):
    """Loses a tag."""

    def insert(self, table: str, columns: tuple[str, ...], rows: Iterable[Row]) -> None:
        """Add all rows but one."""
        kept = [*rows]
        super().insert(table, columns, kept[1:] if table == "reflow_tag" else kept)


class Careless(SQLiteTables):
    """Stores another number with each tag."""

    def insert(self, table: str, columns: tuple[str, ...], rows: Iterable[Row]) -> None:
        """Add all rows, some of them changed."""
        changed = ((f"{row[0]}'", *row[1:]) if table == "reflow_tag" else row for row in rows)
        super().insert(table, columns, changed)


class Narrow(SQLiteTables):
    """Has a column less."""

    def columns(self, table: str) -> tuple[str, ...]:
        """All but the last."""
        columns = super().columns(table)
        return columns[:-1] if table == "reflow_tag" else columns


@pytest.mark.parametrize(
    ("flawed", "why"),
    [
        (Forgetful, "of 2 rows in reflow_tag the target has 1, or has others"),
        (Careless, "of 2 rows in reflow_tag the target has 2, or has others"),
        (Narrow, "source and target have different columns in reflow_tag"),
    ],
)
async def test_a_copy_is_compared(source: Path, tmp_path: Path, flawed: type[SQLiteTables], why: str):
    """A target that lacks a row, has another one, or has other columns is found out, and nothing at all is kept."""
    path = tmp_path / "target.db"
    with reading(source) as tables, pytest.raises(StorageError, match=why), writing(path) as target:
        copy(tables, flawed(target._db, path))

    assert [] == run_ids(path)


async def test_new_runs_are_numbered_on(source: Path, tmp_path: Path):
    """A run that is created in the copy comes after all that were copied."""
    with reading(source) as tables, writing(tmp_path / "target.db") as target:
        copy(tables, target)
    storage = SQLiteStorage(tmp_path / "target.db")
    await storage.initialize()
    await create(storage, new_run("d"))
    await storage.close()

    assert ["a", "b", "c", "d"] == run_ids(tmp_path / "target.db")
