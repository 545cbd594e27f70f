"""A connection beside an adapter: it sees what is committed, holds locks, and ends the connections of others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from anyio import fail_after, to_thread
from psycopg.sql import SQL, Identifier

from tests.support.postgres.schemas import Place

_LIMIT_S = 20
# Whoever uses the schema by way of its place is called after it.
_OTHERS = "from pg_stat_activity where application_name = current_setting('search_path') and pid <> pg_backend_pid()"


class Outside:
    """Statements on the tables of a place; each is a transaction, unless `begin` is one of them."""

    def __init__(self, place: Place) -> None:
        self.connection = psycopg.connect(place.dsn, autocommit=True, application_name="outside")
        self.connection.execute(SQL("set search_path = {}").format(Identifier(place.schema)))

    def __call__(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows that a statement gives."""
        cursor = self.connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def one(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """The value that a statement gives."""
        [[value]] = self(statement, values)
        return value

    async def soon(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Return when the statement, asked again and again, gives true."""
        with fail_after(_LIMIT_S):
            while not await to_thread.run_sync(self.one, statement, values):
                pass

    async def somebody_waits(self) -> None:
        """Return when an adapter waits for a lock."""
        await self.soon(f"select exists (select {_OTHERS} and wait_event_type = 'Lock')")

    def others(self, doing: str = "%") -> list[int]:
        """The processes of the connections that adapters have, by what they did last."""
        return [pid for (pid,) in self(f"select pid {_OTHERS} and query like %s order by pid", (doing,))]

    def terminate(self, doing: str = "%") -> int:
        """End these connections; how many there were."""
        return len(self(f"select pg_terminate_backend(pid, 10000) {_OTHERS} and query like %s", (doing,)))


@contextmanager
def outside(place: Place) -> Iterator[Outside]:
    """A connection to the tables of a place."""
    beside = Outside(place)
    try:
        yield beside
    finally:
        beside.connection.close()
