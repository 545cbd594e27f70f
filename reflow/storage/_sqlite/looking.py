"""Reading a file that may not be written: one of another user, or on a disk that is mounted read-only.

SQLite reads what is in the log beside a database by way of a third file, the shared memory. Two cases are safe:

    a worker is at work, or was killed      the shared memory is there, and SQLite reads database and log
    nobody is at work                       there is no log. The database is read as one that never changes, without
                                            locks; after each reading it is made sure that it has not changed

A log without shared memory is neither. SQLite cannot read it, and would leave out what it holds, so it is refused.
"""

from __future__ import annotations

import sqlite3
from os.path import realpath
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

from reflow.errors import StorageAccessError, StorageError
from reflow.storage._sqlite import schema
from reflow.storage._sqlite.connection import patiently, translated
from reflow.storage._sqlite.session import FileSession

__all__ = ["open_looking"]

_State: TypeAlias = tuple[int, ...]


def open_looking(path: Path) -> FileSession:
    """A session that only reads, and needs no permission to write. `StorageAccessError` where that cannot be."""
    with translated("open", path):
        database = Path(realpath(path))
        before = _state(database)
        if _beside(database, "-shm").exists():
            return FileSession(_connect(path, f"file:{quote(str(database))}?mode=ro"), path, "begin")
        if before[-1]:
            raise StorageAccessError(
                "open",
                f"{path} may not be written, and without that its log {_beside(database, '-wal').name} cannot be read; "
                "copy both into a directory of yours, and look there",
            )
        return _UnchangedFile(_connect(path, f"file:{quote(str(database))}?immutable=1"), path, database, before)


def _connect(path: Path, name: str) -> sqlite3.Connection:
    db = sqlite3.connect(name, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        patiently(lambda: schema.require(db, str(path), "open"))
    except BaseException:
        db.close()
        raise
    return db


class _UnchangedFile(FileSession):
    """Reads a database that nobody is to write to meanwhile; what was read while somebody did is not given out."""

    def __init__(self, db: sqlite3.Connection, path: Path, database: Path, before: _State) -> None:
        super().__init__(db, path, "begin")
        self._database = database
        self._before = before

    def commit(self) -> None:
        """End the transaction, if the file is what it was when it was opened."""
        super().commit()
        if _state(self._database) != self._before:
            raise StorageError("look", f"{self._path} was written to while it was read; try again")


def _state(database: Path) -> _State:
    """What changes with every change of the database; last, how much is in its log."""
    now = database.stat()
    logs = [_beside(database, end) for end in ("-wal", "-journal")]
    return now.st_ino, now.st_size, now.st_mtime_ns, sum(log.stat().st_size for log in logs if log.exists())


def _beside(database: Path, end: str) -> Path:
    return database.with_name(f"{database.name}{end}")
