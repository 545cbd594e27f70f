"""Connections of `apsw` with the face of those of the standard library, as far as Reflow looks at it.

After `install`, `sqlite3.connect` in this process opens files by way of the disk that misbehaves, and no other way.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from os import fspath
from typing import Any

import apsw

from tests.crash.disk import vfs

__all__ = ["install"]

# As the standard driver does it: https://github.com/python/cpython, Modules/_sqlite/util.c
_OPERATIONAL = {
    apsw.SQLITE_ERROR, apsw.SQLITE_PERM, apsw.SQLITE_ABORT, apsw.SQLITE_BUSY, apsw.SQLITE_LOCKED,
    apsw.SQLITE_READONLY, apsw.SQLITE_INTERRUPT, apsw.SQLITE_IOERR, apsw.SQLITE_FULL, apsw.SQLITE_CANTOPEN,
    apsw.SQLITE_PROTOCOL, apsw.SQLITE_SCHEMA,
}  # fmt: skip
_INTEGRITY = {apsw.SQLITE_CONSTRAINT, apsw.SQLITE_MISMATCH}


def install(checkpoint_every: int = 1_000) -> None:
    """From now on `sqlite3.connect` opens files this way; logs are checkpointed after so many pages, by default after
    as many as SQLite does."""

    def connect(path: Any, **_: Any) -> Connection:
        with _translated():
            return Connection(apsw.Connection(fspath(path), vfs=vfs.NAME), checkpoint_every)

    sqlite3.connect = connect  # type: ignore[assignment]
    # SQLite goes on after some errors, such as that of a delete; nobody needs to hear of those that the test made.
    sys.unraisablehook = lambda told: None if isinstance(told.exc_value, apsw.Error) else sys.__unraisablehook__(told)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        code = getattr(error, "extendedresult", apsw.SQLITE_ERROR)
        kind: type[sqlite3.Error] = sqlite3.DatabaseError
        if code & 0xFF in _OPERATIONAL:
            kind = sqlite3.OperationalError
        elif code & 0xFF in _INTEGRITY:
            kind = sqlite3.IntegrityError
        named = kind(str(error))
        named.sqlite_errorcode = code
        raise named from error


class Connection:
    """What Reflow uses of `sqlite3.Connection`."""

    def __init__(self, db: apsw.Connection, checkpoint_every: int) -> None:
        self._db = db

        def checkpoint(db: apsw.Connection, _name: str, pages: int) -> int:
            # As SQLite does by itself, where errors are left to the next one: a commit succeeds all the same. (apsw
            # would raise them, because of the Python exception that is there, though SQLite has answered OK.)
            if pages >= checkpoint_every:
                with suppress(apsw.Error):
                    db.wal_checkpoint()
            return apsw.SQLITE_OK

        db.set_wal_hook(checkpoint)

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Cursor:
        with _translated():
            return Cursor(self._db, self._db.execute(statement, values))

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]]) -> Cursor:
        with _translated():
            return Cursor(self._db, self._db.executemany(statement, rows))

    def close(self) -> None:
        # SQLite says OK even where the last checkpoint has failed; see above.
        with suppress(apsw.IOError, apsw.FullError, apsw.CantOpenError):
            self._db.close()


class Cursor:
    """What Reflow uses of `sqlite3.Cursor`."""

    def __init__(self, db: apsw.Connection, cursor: apsw.Cursor) -> None:
        self._cursor = cursor
        self.rowcount = db.changes()
        self.lastrowid = db.last_insert_rowid()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchone, None)

    def fetchone(self) -> Any:
        return self._fetched(self._cursor.fetchone)

    def fetchall(self) -> Any:
        return self._fetched(self._cursor.fetchall)

    def _fetched(self, fetch: Callable[[], Any]) -> Any:
        with _translated():
            return fetch()
