"""A connection to a file, as a lane uses it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from sqlite3 import Connection

from reflow.storage._sql.session import Job
from reflow.storage._sqlite.connection import patiently, translated

__all__ = ["FileSession"]


class FileSession:
    """Transactions of one connection. `begin` is the statement that opens them: `begin immediate` takes the lock on the
    file before anything is read, so nobody else writes meanwhile, whatever runs a verb names."""

    def __init__(self, db: Connection, path: Path, begin: str) -> None:
        self._db = db
        self._path = path
        self._begin = begin
        self._version = self._data_version()
        self.name = str(path)

    @property
    def connection(self) -> Connection:
        """The driver's connection."""
        return self._db

    @property
    def is_open(self) -> bool:
        """Whether a transaction is open."""
        return self._db.in_transaction

    @property
    def is_lost(self) -> bool:
        """Never: a file is always there."""
        return False

    @property
    def is_in_doubt(self) -> bool:
        """Never: who commits is there to see it."""
        return False

    def lock(self, runs: Sequence[str]) -> None:
        """The file is locked already."""

    def begin(self, jobs: Sequence[Job], attempt: int) -> Connection:
        """Open a transaction; waits for other processes."""
        patiently(lambda: self._db.execute(self._begin))
        return self._db

    def commit(self) -> None:
        """Commit the transaction."""
        self._db.execute("commit")

    def rollback(self) -> None:
        """Undo the transaction, unless SQLite has done so by itself, as after some errors (disk full, I/O)."""
        if self._db.in_transaction:
            with suppress(sqlite3.Error):
                self._db.execute("rollback")

    def is_worth_another(self, attempt: int, error: Exception) -> bool:
        """Never: who holds the lock is in nobody's way."""
        return False

    def named(self, verb: str, error: Exception) -> Exception:
        """What `error` is called outside."""
        return translated(verb, self._path).of(error)

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def looking_for_changes(self, on_change: Callable[[], object]) -> Callable[[], None]:
        """What calls `on_change` when another connection has written to the file since somebody looked."""
        told = self._version

        def look() -> None:
            nonlocal told
            self._version = self._data_version() or self._version
            if told != self._version:
                told = self._version
                on_change()

        return look

    def _data_version(self) -> int | None:
        """A number that other connections change; read from shared memory only. None while it is not to be had."""
        try:
            version: int = self._db.execute("pragma data_version").fetchone()[0]
        except sqlite3.Error:
            # Busy, or broken: verbs will say so.
            return None
        return version
