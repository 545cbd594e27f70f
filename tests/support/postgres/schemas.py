"""Schemas to test in. Emptied tables are used again: that takes 0.2 ms, and to make and drop a schema takes 60.

Truncating them would take 26 ms, a database from a template as long as a schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Self
from uuid import uuid4

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

# Says which version the other tables are of; it has to stay as it is.
_VERSION_TABLE = "schema"


class Place(NamedTuple):
    """Where a test keeps its data: `dsn` names the server, and is told apart by the server from other tests' ones."""

    dsn: str
    schema: str


class Schemas:
    """Lends schemas of one server, each to one test at a time; drops them all at the end of its `with` block."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        # What a test left locked is an error of this test, and not a test that hangs.
        self._connection = psycopg.connect(dsn, autocommit=True, options="-c lock_timeout=10s")
        self._names: list[str] = []
        self._empty: list[str] = []

    @contextmanager
    def lend(self, *, fresh: bool = False) -> Iterator[Place]:
        """A schema that is not there yet, or is there with empty tables; a `fresh` one is never there, and nobody
        gets it afterwards: for a test that changes the tables themselves."""
        if fresh or not self._empty:
            self._names.append(f"rf_test_{uuid4().hex[:16]}")
            name = self._names[-1]
        else:
            name = self._empty.pop()
        try:
            yield Place(make_conninfo(self.dsn, application_name=name), name)
        finally:
            self._disconnect(name)
            if fresh:
                self._drop(name)
            else:
                self._clear(name)
                self._empty.append(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for name in [*self._names]:
            self._disconnect(name)
            self._drop(name)
        self._connection.close()

    def _disconnect(self, name: str) -> None:
        """End the connections that a test has left, those of processes that it has killed above all."""
        self._connection.execute(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity where application_name = %s", (name,)
        )

    def _clear(self, name: str) -> None:
        tables = self._connection.execute(
            "select tablename from pg_tables where schemaname = %s and tablename <> %s", (name, _VERSION_TABLE)
        )
        for (table,) in tables.fetchall():
            self._connection.execute(SQL("delete from {}").format(Identifier(name, table)))

    def _drop(self, name: str) -> None:
        self._connection.execute(SQL("drop schema if exists {} cascade").format(Identifier(name)))
        self._names.remove(name)
