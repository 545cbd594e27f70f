"""Opening a file, and saying the driver's errors in Reflow's words."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from sqlite3 import Connection
from typing import Literal, TypeAlias, TypeVar

from reflow.errors import StorageAccessError, StorageError, StorageFormatError
from reflow.storage._sqlite import schema

__all__ = ["Durability", "open_reader", "open_writer", "patiently", "translated"]

T = TypeVar("T")

Durability: TypeAlias = Literal["full", "process"]

_SYNCHRONOUS: dict[Durability, str] = {"full": "full", "process": "normal"}
# How long SQLite itself waits for another process, and how often we let it: a minute in all.
_BUSY_TIMEOUT_S = 5.0
_MOST_WAITS = 12
# Primary result codes, https://sqlite.org/rescode.html
_NO_ACCESS = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)
_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def open_writer(path: Path, durability: Durability) -> Connection:
    """The connection that writes: WAL, tables up to date."""
    directory = path.absolute().parent
    if not directory.is_dir():
        raise StorageAccessError("open", f"the directory {directory} does not exist; create it first")
    if path.is_dir():
        raise StorageAccessError("open", f"{path} is a directory; name a file in it")

    def prepare(db: Connection) -> None:
        # Looked at before anything is written: a file that is not ours to use stays as it is.
        schema.check(db, str(path))
        [mode] = db.execute("pragma journal_mode = wal").fetchone()
        if mode != "wal":
            raise StorageAccessError(
                "open", f"{path} cannot use WAL (journal mode {mode!r}); is it on a network drive?"
            )
        db.execute(f"pragma synchronous = {_SYNCHRONOUS[durability]}")
        schema.migrate(db, str(path))

    return _opened(path, prepare)


def open_reader(path: Path) -> Connection:
    """A connection that only reads, beside the writer."""
    return _opened(path, lambda db: db.execute("pragma query_only = on"))


def _opened(path: Path, prepare: Callable[[Connection], object]) -> Connection:
    with translated("open", path):
        db = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        with translated("open", path):
            patiently(lambda: prepare(db))
    except BaseException:
        db.close()
        raise
    return db


def patiently(do: Callable[[], T]) -> T:
    """The result of `do`, tried again while another process holds the file's lock."""
    for _ in range(_MOST_WAITS - 1):
        try:
            return do()
        except sqlite3.OperationalError as error:
            if not _is_busy(error):
                raise
            # Some locks (the change to WAL, recovery) are reported at once, without SQLite's own waiting.
            time.sleep(0.01)
    return do()


def _is_busy(error: sqlite3.Error) -> bool:
    return _primary_code(error) in _BUSY


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


class translated:
    """Raise the driver's errors as `StorageError` or the subclass that says whose fault it is."""

    def __init__(self, verb: str, path: Path) -> None:
        self._verb = verb
        self._path = path

    def __enter__(self) -> None:
        return

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise self.of(error) from error

    def of(self, error: sqlite3.Error) -> StorageError:
        """What `error` is called outside."""
        code = _primary_code(error)
        if code in _DAMAGED:
            return StorageFormatError(self._verb, f"{self._path}: {error}. The file was left as it is")
        if code in _NO_ACCESS:
            return StorageAccessError(self._verb, f"{self._path}: {error}; check the permissions of file and directory")
        return StorageError(self._verb, f"{self._path}: {error}")
