"""The tables of a schema, for copying."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any

from psycopg import Connection
from psycopg.sql import SQL, Identifier

from reflow.errors import StorageError
from reflow.storage._postgres.connection import Server, ServerDatabase
from reflow.storage._postgres.schema import migrate, version_of
from reflow.storage._postgres.session import begin_reading
from reflow.storage._sql.copying import Row
from reflow.storage._sql.session import named_by
from reflow.storage._sql.tables import VERSION

__all__ = ["ServerTables", "reading", "writing"]

_HELD = "select count(*) from reflow_run where lease_id is not null and due_at > ?"
_COLUMNS = """select column_name from information_schema.columns where table_schema = ?::text and table_name = ?::text
    order by ordinal_position"""
_COUNT_ON = "select setval(pg_get_serial_sequence(?::text, 'id'), coalesce(max(id), 0) + 1, false)"
_ROWS_AT_ONCE = 5_000


class ServerTables:
    """Those of the schema that a connection uses, in its transaction."""

    def __init__(self, server: Server, connection: Connection[tuple[Any, ...]]) -> None:
        self._server = server
        self._connection = connection
        self._db = ServerDatabase(connection, server.schema)

    def columns(self, table: str) -> tuple[str, ...]:
        """The names of all columns, as the server has them."""
        with named_by(self._server.named, "copy"):
            names = self._db.execute(_COLUMNS, (self._server.schema, table.removeprefix("reflow_"))).fetchall()
        return tuple(name for (name,) in names)

    def rows(self, table: str, columns: tuple[str, ...]) -> Iterator[Row]:
        """All rows, some thousands at a time."""
        query = SQL("select {} from {}").format(SQL(", ").join(map(Identifier, columns)), self._place(table))
        with named_by(self._server.named, "copy"), self._connection.cursor("reflow_copy", binary=True) as cursor:
            cursor.itersize = _ROWS_AT_ONCE
            yield from cursor.execute(query)

    def insert(self, table: str, columns: tuple[str, ...], rows: Iterable[Row]) -> None:
        """Add rows; new runs are then numbered from the last of them."""
        marks = ", ".join("?" * len(columns))
        statement = f"insert into {table} ({', '.join(columns)}) values ({marks})"
        rows = iter(rows)
        with named_by(self._server.named, "copy"):
            while some := list(islice(rows, _ROWS_AT_ONCE)):
                self._db.executemany(statement, some)
            if table == "reflow_run":
                self._db.execute(f"{_COUNT_ON} from {table}", (self._place(table).as_string(),))

    def held_leases(self, now: int) -> int:
        """How many runs have a lease that is not over."""
        with named_by(self._server.named, "copy"):
            [count] = self._db.execute(_HELD, (now,)).fetchone() or (0,)
        return int(count)

    def _place(self, table: str) -> Identifier:
        return Identifier(self._server.schema, table.removeprefix("reflow_"))


@contextmanager
def reading(server: Server) -> Generator[ServerTables]:
    """The tables of a schema that exists, as they are at one moment: what others write meanwhile is not seen."""
    with named_by(server.named, "copy"), closing(server.connect()) as connection:
        connection.execute(begin_reading.encode())
        version = version_of(server, connection)
        if version != VERSION:
            raise StorageError(
                "copy",
                f"{server.name} has no tables of this version (schema {version}, not {VERSION}); start a worker on it "
                "once, which brings them up to date",
            )
        yield ServerTables(server, connection)


@contextmanager
def writing(server: Server) -> Generator[ServerTables]:
    """The tables of a schema, made where there is none; what was written is kept when this is left without an error."""
    with named_by(server.named, "copy"), closing(server.connect()) as connection:
        server.check(connection)
        migrate(server, connection)
        with connection.transaction():
            yield ServerTables(server, connection)
