"""The tables of a SQLite file, for copying."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from sqlite3 import Connection

from reflow.errors import StorageAccessError
from reflow.storage._sql.copying import Row
from reflow.storage._sqlite import schema
from reflow.storage._sqlite.connection import open_reader, open_writer, patiently, translated

__all__ = ["SQLiteTables", "reading", "writing"]

_HELD = "select count(*) from reflow_run where lease_id is not null and due_at > ?"


class SQLiteTables:
    """Those of the file that a connection is open on, in its transaction."""

    def __init__(self, db: Connection, path: Path) -> None:
        self._db = db
        self._path = path

    def columns(self, table: str) -> tuple[str, ...]:
        """The names of all columns, as the file has them."""
        return tuple(name for (name,) in self._db.execute("select name from pragma_table_info(?)", (table,)))

    def rows(self, table: str, columns: tuple[str, ...]) -> Iterator[Row]:
        """All rows, one by one."""
        with translated("copy", self._path):
            yield from self._db.execute(f"select {', '.join(columns)} from {table}")

    def insert(self, table: str, columns: tuple[str, ...], rows: Iterable[Row]) -> None:
        """Add rows."""
        marks = ", ".join("?" * len(columns))
        with translated("copy", self._path):
            self._db.executemany(f"insert into {table} ({', '.join(columns)}) values ({marks})", rows)

    def held_leases(self, now: int) -> int:
        """How many runs have a lease that is not over."""
        with translated("copy", self._path):
            count: int = self._db.execute(_HELD, (now,)).fetchone()[0]
        return count


@contextmanager
def reading(path: Path) -> Generator[SQLiteTables, None, None]:
    """The tables of a file that exists, as they are at one moment: what others write meanwhile is not seen."""
    if not path.is_file():
        raise StorageAccessError("copy", f"there is no file {path}")
    with closing(open_reader(path)) as db:
        with translated("copy", path):
            db.execute("begin")
            patiently(lambda: schema.require(db, str(path), "copy"))
        yield SQLiteTables(db, path)


@contextmanager
def writing(path: Path) -> Generator[SQLiteTables, None, None]:
    """The tables of a file, made where there is none; what was written is kept when this is left without an error."""
    with closing(open_writer(path, "full")) as db:
        with translated("copy", path):
            patiently(lambda: db.execute("begin immediate"))
        yield SQLiteTables(db, path)
        with translated("copy", path):
            db.execute("commit")
