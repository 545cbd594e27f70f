"""`SQLiteStorage`: one file, no server. Several engines and processes of one machine may share it.

Everything is written through one lane (group commit), and read through another, so that loading a long journal holds
up no commit. WAL lets the two go on side by side. `begin immediate` takes the write lock before anything is read, so no
write is ever refused half way; what is read in one transaction belongs together, though others go on writing meanwhile.

With `durability="full"`, the default, a commit is on the disk before the step that needs it starts
(`synchronous=FULL`). With `"process"` (`NORMAL`) a kill of the process loses nothing, but a power cut may take back the
last acknowledged steps.

Keep the file on a local disk: SQLite's locks do not hold on network file systems (https://sqlite.org/useovernet.html).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

from reflow.errors import ConfigError
from reflow.storage._sql import verbs
from reflow.storage._sql.lane import Lane
from reflow.storage._sql.storage import Lanes, SQLStorage, Writes
from reflow.storage._sql.transactions import Transactions
from reflow.storage._sqlite.claims import claim_runs, heartbeat
from reflow.storage._sqlite.connection import Durability, open_reader, open_writer, translated
from reflow.storage._sqlite.session import FileSession
from reflow.storage.listeners import Wake

__all__ = ["SQLiteStorage"]

_WRITES = Writes(verbs.create_runs_of_each, claim_runs, heartbeat, verbs.save_progress)


class SQLiteStorage(SQLStorage):
    """Runs kept in a SQLite file, created where it does not exist.

    `path` names the file; its directory must exist. `durability` is `"full"` or `"process"` (see the module).
    Raises `ConfigError` for other values, and for `":memory:"`; what cannot be opened shows on `initialize`, which
    entering an `Engine` does for you.
    """

    def __init__(self, path: str | os.PathLike[str], *, durability: Durability = "full") -> None:
        if durability not in get_args(Durability):
            raise ConfigError(f"durability is {durability!r}; write 'full' or 'process'")
        if not isinstance(path, (str, os.PathLike)) or str(path) in ("", ":memory:"):
            raise ConfigError(f"path is {path!r}; name a file, or use MemoryStorage() to keep runs in memory")
        self.path = Path(path)
        self.durability: Durability = durability
        self._file: FileSession | None = None
        super().__init__(str(self.path), _WRITES)

    def __repr__(self) -> str:
        return f"SQLiteStorage({str(self.path)!r}, durability={self.durability!r})"

    async def listen(self, wake: Wake) -> None:
        """Clauses Y: the verbs of this adapter tell, and the file, of what other connections have written."""
        writing = self._opened("listen").writing
        assert self._file is not None
        with writing.looking(self._file.looking_for_changes(self._listeners.wake)):
            await super().listen(wake)

    def _open_lanes(self) -> Lanes:
        writer = open_writer(self.path, self.durability)
        try:
            reader = open_reader(self.path)
        except BaseException:
            writer.close()
            raise
        self._file = FileSession(writer, self.path, "begin immediate")
        reading = FileSession(reader, self.path, "begin")
        return Lanes(Lane(self._file, "writing"), Lane(reading, "reading"), Transactions(self._new_session))

    def _new_session(self) -> FileSession:
        return FileSession(open_writer(self.path, self.durability), self.path, "begin immediate")

    def _named(self, verb: str, error: Exception) -> Exception:
        return translated(verb, self.path).of(error)
