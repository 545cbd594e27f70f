"""The disk as SQLite sees it: real files, a log of what happens to them, and operations that fail when told to."""

from __future__ import annotations

from collections import Counter
from os.path import basename, exists
from threading import RLock
from typing import Any

import apsw

from tests.crash.disk.faults import OPERATIONS, Fault, Trouble
from tests.crash.disk.model import Created, Deleted, Record, Synced, Truncated, Written

__all__ = ["NAME", "Disk"]

NAME = "disk"
"""What connections name it by."""

# What is beneath: the one that the standard driver uses.
_BENEATH = "unix"

# What SQLite is told: https://sqlite.org/rescode.html
_ERRORS: dict[Fault, tuple[type[apsw.Error], int]] = {
    "full": (apsw.FullError, apsw.SQLITE_FULL),
    "write": (apsw.IOError, apsw.SQLITE_IOERR_WRITE),
    "sync": (apsw.IOError, apsw.SQLITE_IOERR_FSYNC),
    "truncate": (apsw.IOError, apsw.SQLITE_IOERR_TRUNCATE),
    "read": (apsw.IOError, apsw.SQLITE_IOERR_READ),
    "size": (apsw.IOError, apsw.SQLITE_IOERR_FSTAT),
    "lock": (apsw.IOError, apsw.SQLITE_IOERR_LOCK),
    "open": (apsw.CantOpenError, apsw.SQLITE_CANTOPEN),
    "delete": (apsw.IOError, apsw.SQLITE_IOERR_DELETE),
}


class Disk(apsw.VFS):
    """One for a process. `log` tells what happened, `met` how many operations of each kind there were, `struck` how
    many of them failed."""

    def __init__(self) -> None:
        super().__init__(NAME, _BENEATH)
        self.lock = RLock()
        self.log: list[Record] = []
        self.met: Counter[str] = Counter()
        self.struck = 0
        self._trouble: Trouble | None = None

    def note(self, record: Record) -> None:
        """Add to the log, after all that has happened."""
        with self.lock:
            self.log.append(record)

    def begin(self, trouble: Trouble | None) -> None:
        """Start counting, with an empty log."""
        with self.lock:
            self.log.clear()
            self.met.clear()
            self.struck = 0
            self._trouble = trouble

    def heal(self) -> None:
        """From now on nothing fails."""
        self._trouble = None

    def meet(self, operation: str) -> None:
        """Fail, if it is this operation's turn."""
        self.met[operation] += 1
        if self._trouble is not None:
            fault, at, lasts = self._trouble
            number = self.met[operation]
            if OPERATIONS[fault] == operation and (number == at or (lasts and number > at)):
                self.struck += 1
                kind, code = _ERRORS[fault]
                error = kind(f"the test made this {operation} fail")
                error.result, error.extendedresult = code & 0xFF, code
                raise error

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        with self.lock:
            self.meet("open")
            is_new = path is not None and not exists(path)
            file = _File(self, path, name, flags)
            if is_new:
                self.log.append(Created(file.name))
            return file

    def xDelete(self, path: str, syncdir: bool) -> None:
        with self.lock:
            self.meet("delete")
            super().xDelete(path, syncdir)
            self.log.append(Deleted(basename(path), syncdir))


class _File(apsw.VFSFile):
    """A file; its shared memory goes past it."""

    def __init__(self, disk: Disk, path: str | None, name: Any, flags: list[int]) -> None:
        super().__init__(_BENEATH, name, flags)
        self._disk = disk
        self.name = basename(path or "temporary")
        # As SQLite's own: the first sync of a new journal or log is one of the directory too.
        journal = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL | apsw.SQLITE_OPEN_WAL
        self._syncs_directory = bool(flags[0] & apsw.SQLITE_OPEN_CREATE and flags[0] & journal)

    def xRead(self, amount: int, offset: int) -> bytes:
        self._disk.meet("read")
        return super().xRead(amount, offset)

    def xFileSize(self) -> int:
        self._disk.meet("size")
        return super().xFileSize()

    def xLock(self, level: int) -> None:
        self._disk.meet("lock")
        super().xLock(level)

    def xWrite(self, data: Any, offset: int) -> None:
        with self._disk.lock:
            try:
                self._disk.meet("write")
            except apsw.IOError:
                # It was half done.
                self._write(bytes(data)[: len(data) // 2], offset)
                raise
            self._write(bytes(data), offset)

    def _write(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        self._disk.log.append(Written(self.name, offset, data))

    def xTruncate(self, newsize: int) -> None:
        with self._disk.lock:
            self._disk.meet("truncate")
            super().xTruncate(newsize)
            self._disk.log.append(Truncated(self.name, newsize))

    def xSync(self, flags: int) -> None:
        with self._disk.lock:
            try:
                self._disk.meet("sync")
            except apsw.IOError:
                self._disk.log.append(Synced(self.name, failed=True))
                raise
            # Not beneath: what is durable is the model's business.
            self._disk.log.append(Synced(self.name, self._syncs_directory))
            self._syncs_directory = False
