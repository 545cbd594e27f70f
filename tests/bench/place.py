"""Where the runs of one measurement are kept: a file of its own, or a schema of a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from reflow import SQLiteStorage
from reflow.storage._postgres.connection import Server, ServerDatabase
from reflow.storage._postgres.schema import migrate
from reflow.storage._sql.session import Database
from reflow.storage._sqlite.connection import Durability, open_writer
from reflow.storage.postgres import PostgresStorage

__all__ = ["File", "Place", "Schema"]


@dataclass(frozen=True)
class File:
    """A SQLite file."""

    path: Path

    begin = "begin immediate"

    def storage(self, durability: Durability) -> SQLiteStorage:
        """The adapter."""
        return SQLiteStorage(self.path, durability=durability)

    @contextmanager
    def connected(self, durability: Durability = "process") -> Iterator[Database]:
        """A connection beside the adapter's; the tables are there."""
        with closing(open_writer(self.path, durability)) as db:
            yield db

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return self.path.stat().st_size


@dataclass(frozen=True)
class Schema:
    """A schema of a Postgres server."""

    dsn: str
    name: str

    begin = "begin"

    def storage(self, durability: Durability) -> PostgresStorage:
        """The adapter."""
        return PostgresStorage(self.dsn, schema=self.name, durability=durability)

    @contextmanager
    def connected(self, durability: Durability = "process") -> Iterator[Database]:
        """A connection beside the adapter's; the tables are there."""
        server = Server(self.dsn, self.name, True)
        with closing(server.connect()) as connection:
            migrate(server, connection)
            if durability == "process":
                connection.execute("set synchronous_commit = off")
            yield ServerDatabase(connection, self.name)

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        with self.connected() as db:
            sizes = db.execute(
                "select sum(pg_total_relation_size(oid)) from pg_class where relnamespace = ?::text::regnamespace",
                (self.name,),
            )
            return int(sizes.fetchone()[0])


Place: TypeAlias = File | Schema
