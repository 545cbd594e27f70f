"""Opening a file, waiting for other processes, and saying the driver's errors in Reflow's words."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from os.path import realpath
from pathlib import Path
from sqlite3 import Connection
from typing import Literal, TypeAlias, TypeVar

from reflow.errors import StorageAccessError, StorageError, StorageFormatError, StorageValueError
from reflow.storage._sqlite import schema

__all__ = ["Durability", "open_reader", "open_writer", "patiently", "translated"]

T = TypeVar("T")

Durability: TypeAlias = Literal["full", "process"]

_SYNCHRONOUS: dict[Durability, str] = {"full": "full", "process": "normal"}
# How long to wait for another process that holds the lock: a minute in all, never long at a time. Commits are short,
# and between two commits of a busy process the lock is free for a moment only.
_WAITS_S = (0.001, 0.001, 0.002, 0.002, 0.005, *[0.01] * 6_000)
# Primary result codes, https://sqlite.org/rescode.html
_NO_ACCESS = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)
_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def open_writer(path: Path, durability: Durability) -> Connection:
    """The connection that writes: WAL, tables up to date."""
    with translated("open", path):
        directory = path.absolute().parent
        if not directory.is_dir():
            raise StorageAccessError("open", f"the directory {directory} does not exist; create it first")
        if path.is_dir():
            raise StorageAccessError("open", f"{path} is a directory; name a file in it")
        _refuse_a_log_alone(path)

    def prepare(db: Connection) -> None:
        # Looked at before anything is written: a file that is not ours to use stays as it is.
        schema.check(db, str(path))
        [mode] = db.execute("pragma journal_mode = wal").fetchone()
        if mode != "wal":
            raise StorageAccessError(
                "open", f"{path} cannot use WAL (journal mode {mode!r}); is it on a network drive?"
            )
        db.execute(f"pragma synchronous = {_SYNCHRONOUS[durability]}")
        if durability == "full":
            # macOS only: there, fsync alone leaves data in the drive's cache (https://sqlite.org/pragma.html#pragma_fullfsync).
            db.execute("pragma fullfsync = on")
        schema.migrate(db, str(path))

    return _opened(path, prepare)


def _refuse_a_log_alone(path: Path) -> None:
    """SQLite takes a file that is empty or missing for a new database, and deletes the log of the one that was there.

    A new database has its first page before it has a log; the log is looked at first, so that one that another process
    is just making is not taken for a lost one.
    """
    database = Path(realpath(path))
    log = database.with_name(f"{database.name}-wal")
    if _size(log) and not _size(database):
        raise StorageFormatError(
            "open",
            f"{path} is missing or empty, but what was written to it last is still in {log}. Put the database back to "
            "go on with it, or delete that file too to begin anew. Nothing was changed",
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def open_reader(path: Path) -> Connection:
    """A connection that only reads, beside the writer."""
    return _opened(path, lambda db: db.execute("pragma query_only = on"))


def _opened(path: Path, prepare: Callable[[Connection], object]) -> Connection:
    with translated("open", path):
        # Without a time limit of SQLite's own: it does not apply to all locks (the change to WAL, recovery).
        db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        with translated("open", path):
            patiently(lambda: prepare(db))
    except BaseException:
        db.close()
        raise
    return db


def patiently(do: Callable[[], T]) -> T:
    """The result of `do`, tried again while another connection or process holds the lock that it needs."""
    for wait_s in _WAITS_S:
        try:
            return do()
        except sqlite3.OperationalError as error:
            if _primary_code(error) not in _BUSY:
                raise
            time.sleep(wait_s)
    return do()


def _primary_code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


class translated:
    """Raise what the driver raises as `StorageError`, or the subclass that says whose fault it is."""

    def __init__(self, verb: str, path: Path) -> None:
        self._verb = verb
        self._path = path

    def __enter__(self) -> None:
        return

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, Exception) and (named := self.of(error)) is not error:
            raise named

    def of(self, error: Exception) -> Exception:
        """What `error` is called outside: itself, unless it comes from the driver."""
        code = _primary_code(error)
        named: StorageError
        if code in _DAMAGED:
            named = StorageFormatError(self._verb, f"{self._path}: {error}. The file was left as it is")
        elif code in _NO_ACCESS or isinstance(error, OSError):
            named = StorageAccessError(
                self._verb, f"{self._path}: {error}; check the permissions of file and directory"
            )
        # What the driver says of values that no column takes, such as an integer of 65 bits, or a gigabyte.
        elif isinstance(error, (sqlite3.DataError, OverflowError, ValueError, TypeError)):
            named = StorageValueError(self._verb, f"{self._path}: {error}")
        elif isinstance(error, sqlite3.Error):
            named = StorageError(self._verb, f"{self._path}: {error}")
        else:
            return error
        named.__cause__ = error
        return named
