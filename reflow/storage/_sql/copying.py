"""The tables of a storage as such, and copying all of their rows into another storage.

A copy is exact: every column of every row as it is, internal numbers included. Only so are the runs the same afterwards
as before: journals with the order of their entries, cut entries, timers, mailboxes with the numbers of their messages
and what was sent already, tags, keys, generations, schedules. The verbs of the contract make runs as a user does, and
could not bring that back. So a copy goes below the verbs, table by table, and knows nothing of what the columns mean.

It holds on to three things. The rows are those of one moment: the source is read in one transaction. They arrive
together or not at all: the target is empty before, and written in one transaction. And they are compared before that
transaction ends: what the target then gives back has to be what the source gave.

Nothing is lost of a run that is executed at that moment, but its engine would go on with the original. Who copies makes
sure that none does (`held_leases`). A lease that is over, left by a kill, is copied like the rest, and claimed over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol, TypeAlias

from msgspec import msgpack

from reflow.errors import StorageError
from reflow.storage._sql.tables import OF_RUNS

__all__ = ["TABLES", "Row", "Tables", "copy"]

# Runs first: the rows of most others refer to one.
TABLES = ("reflow_run", "reflow_tag", *OF_RUNS, "reflow_schedule")

Row: TypeAlias = "tuple[int | str | bytes | None, ...]"


class Tables(Protocol):
    """The tables of one storage, of the present version, in a transaction that its maker begins and ends."""

    def columns(self, table: str) -> tuple[str, ...]:
        """The names of all columns of a table."""
        ...

    def rows(self, table: str, columns: tuple[str, ...]) -> Iterator[Row]:
        """All rows, with these columns in this order; not all in memory at once."""
        ...

    def insert(self, table: str, columns: tuple[str, ...], rows: Iterable[Row]) -> None:
        """Add rows with these columns; what numbers new rows then counts on from the last of them."""
        ...

    def held_leases(self, now: int) -> int:
        """How many runs have a lease that is not over."""
        ...


class _Sum(NamedTuple):
    """What a table holds: how many rows, and the sum of their digests, in whatever order they come."""

    rows: int = 0
    digests: int = 0

    def plus(self, row: Row) -> _Sum:
        digest = hashlib.blake2b(msgpack.encode(row), digest_size=16).digest()
        return _Sum(self.rows + 1, (self.digests + int.from_bytes(digest)) % (1 << 128))


def copy(source: Tables, target: Tables) -> dict[str, int]:
    """Copy all rows of `source`, and say how many they are, by table.

    `StorageError`, and the target is not to be committed, where it is not empty, has other columns, or does not give
    back what it was given.
    """
    columns = {table: source.columns(table) for table in TABLES}
    for table in TABLES:
        if next(target.rows(table, columns[table][:1]), None) is not None:
            raise StorageError("copy", f"the target is not empty, it has rows in {table}; name a new one")
        if set(columns[table]) != set(target.columns(table)):
            raise StorageError("copy", f"source and target have different columns in {table}")
    return {table: _copy_table(source, target, table, columns[table]) for table in TABLES}


def _copy_table(source: Tables, target: Tables, table: str, columns: tuple[str, ...]) -> int:
    given = _Sum()

    def counted() -> Iterator[Row]:
        nonlocal given
        for row in source.rows(table, columns):
            given = given.plus(row)
            yield row

    target.insert(table, columns, counted())
    kept = _Sum()
    for row in target.rows(table, columns):
        kept = kept.plus(row)
    if kept != given:
        raise StorageError("copy", f"of {given.rows} rows in {table} the target has {kept.rows}, or has others")
    return given.rows
