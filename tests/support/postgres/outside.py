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
OTHERS = "from pg_stat_activity where application_name = current_setting('search_path') and pid <> pg_backend_pid()"


class Outside:
    """Statements on the tables of a place; each is a transaction, unless `begin` is one of them.

    What others do is looked at through another connection: within a transaction it seems to stand still.
    """

    def __init__(self, place: Place) -> None:
        self._connection, self._looking = (
            psycopg.connect(place.dsn, autocommit=True, application_name="outside") for _ in range(2)
        )
        for connection in (self._connection, self._looking):
            connection.execute(SQL("set search_path = {}").format(Identifier(place.schema)))

    def close(self) -> None:
        """Disconnect; what was begun is undone."""
        self._connection.close()
        self._looking.close()

    def __call__(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows that a statement gives."""
        return _rows(self._connection, statement, values)

    def one(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """The value that a statement gives."""
        [[value]] = self(statement, values)
        return value

    async def soon(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Return when the statement, asked again and again, gives true."""
        with fail_after(_LIMIT_S):
            while [(True,)] != await to_thread.run_sync(_rows, self._looking, statement, values):
                pass

    async def somebody_waits(self) -> None:
        """Return when an adapter waits for a lock."""
        await self.soon(f"select exists (select {OTHERS} and wait_event_type = 'Lock')")

    def others(self, doing: str = "%") -> list[int]:
        """The processes of the connections that adapters have, by what they did last."""
        return [pid for (pid,) in _rows(self._looking, f"select pid {OTHERS} and query like %s", (doing,))]

    def terminate(self, doing: str = "%") -> int:
        """End these connections; how many there were."""
        return len(
            _rows(self._looking, f"select pg_terminate_backend(pid, 10000) {OTHERS} and query like %s", (doing,))
        )


def _rows(connection: psycopg.Connection[Any], statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    cursor = connection.execute(statement.encode(), values or None)
    return cursor.fetchall() if cursor.description else []


@contextmanager
def outside(place: Place) -> Iterator[Outside]:
    """A connection to the tables of a place."""
    beside = Outside(place)
    try:
        yield beside
    finally:
        beside.close()
