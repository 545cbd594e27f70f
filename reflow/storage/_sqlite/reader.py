"""Reading beside the lane: a connection of its own, so that loading a long journal holds up no commit.

Every read sees one state of the file: what is selected first and what is selected last belong together, though the
lane and other processes go on writing meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from sqlite3 import Connection
from threading import Lock
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from reflow.storage._sqlite.connection import patiently, translated

__all__ = ["Reader"]

T = TypeVar("T")


class Reader:
    """The one way to read from a file in this process."""

    def __init__(self, db: Connection, path: Path, limiter: CapacityLimiter) -> None:
        self._db = db
        self._path = path
        self._limiter = limiter
        # As in the lane: after an interruption there may be two threads for a moment.
        self._in_use = Lock()

    async def read(self, verb: str, do: Callable[[Connection], T]) -> T:
        """What `do` returns."""
        with translated(verb, self._path):
            return await to_thread.run_sync(self._apply, do, limiter=self._limiter)

    def close(self) -> None:
        """Close the connection, after the read that is going on; for a thread."""
        with self._in_use:
            self._db.close()

    def _apply(self, do: Callable[[Connection], T]) -> T:
        with self._in_use:
            return patiently(lambda: self._snapshot(do))

    def _snapshot(self, do: Callable[[Connection], T]) -> T:
        self._db.execute("begin")
        try:
            return do(self._db)
        finally:
            if self._db.in_transaction:
                self._db.execute("rollback")
