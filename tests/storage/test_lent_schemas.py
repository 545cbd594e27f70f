"""Schemas that tests borrow: empty at first, whatever others did in them, and none is left."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.support.postgres import Schemas, or_skip, serving
from tests.support.postgres.schemas import Place


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    """A server."""
    with or_skip(), serving() as dsn:
        yield dsn


def fill(place: Place) -> None:
    """Do what an adapter does when it opens, and a test after it."""
    with psycopg.connect(place.dsn) as connection:
        connection.execute(f"create schema {place.schema}")
        for table in ("schema", "run"):
            connection.execute(f"create table {place.schema}.{table} (v int)")
            connection.execute(f"insert into {place.schema}.{table} values (7)")


def rows(place: Place, table: str) -> list[tuple[int]]:
    """What a table has."""
    with psycopg.connect(place.dsn) as connection:
        return connection.execute(f"select v from {place.schema}.{table}").fetchall()


def schemas_of(dsn: str, *names: str) -> list[str]:
    """Those of these schemas that the server has."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute("select nspname from pg_namespace where nspname = any(%s)", ([*names],)).fetchall()
    return [name for (name,) in found]


def test_tables_are_emptied_and_lent_again(dsn: str):
    """The next to borrow gets the same tables without rows, except for the version of the tables."""
    with Schemas(dsn) as schemas:
        with schemas.lend() as first:
            fill(first)
        with schemas.lend() as second:
            assert (first.schema, [], [(7,)]) == (second.schema, rows(second, "run"), rows(second, "schema"))


def test_each_borrower_has_its_own(dsn: str):
    """Two at the same time have different schemas, and a fresh one was nobody's before, and is nobody's afterwards."""
    with Schemas(dsn) as schemas:
        with schemas.lend() as known:
            pass
        with schemas.lend() as one, schemas.lend() as other, schemas.lend(fresh=True) as fresh:
            fill(fresh)
            names = {known.schema, one.schema, other.schema, fresh.schema}
            assert (known.schema, 3) == (one.schema, len(names))
        assert [] == schemas_of(dsn, fresh.schema)


def test_what_a_borrower_leaves_open_is_ended(dsn: str):
    """A connection that a test left in a transaction, with the tables locked, is ended; others are not."""
    with Schemas(dsn) as schemas, psycopg.connect(dsn) as other:
        with schemas.lend() as place:
            fill(place)
            left = psycopg.connect(place.dsn)
            left.execute(f"lock table {place.schema}.run")

        with pytest.raises(psycopg.OperationalError):
            left.execute("select 1")
        left.close()
        assert (1,) == other.execute("select 1").fetchone()


def test_none_is_left(dsn: str):
    """At the end every schema is dropped, also the one of a test that failed."""
    names: list[str] = []

    def fails(schemas: Schemas) -> None:
        with schemas.lend() as place, schemas.lend() as other:
            names.extend((place.schema, other.schema))
            fill(place)
            fill(other)
            raise ZeroDivisionError

    with Schemas(dsn) as schemas, pytest.raises(ZeroDivisionError):
        fails(schemas)
    assert [] == schemas_of(dsn, *names)
