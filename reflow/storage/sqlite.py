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
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple, TypeVar, get_args

from anyio import CancelScope, CapacityLimiter, to_thread

from reflow._core.journal import Journal
from reflow.errors import ConfigError, StorageError
from reflow.storage._sqlite import verbs
from reflow.storage._sqlite.connection import Durability, open_reader, open_writer, translated
from reflow.storage._sqlite.lane import Lane, LaneStatistics, Verb
from reflow.storage.listeners import Listeners
from reflow.storage.loop import call_soon_here
from reflow.storage.records import Claimed, Lease, NewRun, Progress, RunRow

__all__ = ["SQLiteStorage"]

A = TypeVar("A")
R = TypeVar("R")


class SQLiteStorage:
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
        self._open: _Open | None = None
        self._users = 0
        self._listeners = Listeners()
        self._changing = Lock()

    def __repr__(self) -> str:
        return f"SQLiteStorage({str(self.path)!r}, durability={self.durability!r})"

    async def initialize(self) -> None:
        """Open the file and bring its tables up to date (clauses A)."""
        self._users += 1
        try:
            with CancelScope(shield=True):
                await to_thread.run_sync(self._ensure_open, limiter=CapacityLimiter(1))
        except BaseException:
            self._users -= 1
            raise

    async def close(self) -> None:
        """Close the file, once nobody who initialized it uses it any more (clauses B)."""
        self._users = max(0, self._users - 1)
        if self._users == 0 and self._open is not None:
            with CancelScope(shield=True), translated("close", self.path):
                await to_thread.run_sync(self._close_unused)

    async def create_run(self, run: NewRun) -> tuple[RunRow, bool]:
        """Clauses C."""
        # Already now: a claim that is made because of it is carried out behind this, often in the same transaction.
        self._listeners.wake()
        return await self._write("create_run", verbs.create_run, run)

    async def claim_runs(
        self, workflows: Sequence[tuple[str, int]], *, limit: int, lease_id: str, now: int, lease_until: int
    ) -> Claimed:
        """Clauses D."""
        claim = verbs.Claim(workflows, limit, lease_id, now, lease_until)
        return await self._write("claim_runs", verbs.claim_runs, claim)

    async def heartbeat(self, leases: Sequence[Lease], *, lease_until: int) -> list[Lease]:
        """Clauses E."""
        return await self._write("heartbeat", verbs.heartbeat, verbs.Heartbeat(leases, lease_until))

    async def save_progress(self, progress: Progress) -> bool:
        """Clauses F."""
        return await self._write("save_progress", verbs.save_progress, progress)

    async def get_run(self, run_id: str) -> RunRow | None:
        """Clauses G."""
        return await self._read("get_run", verbs.get_run, run_id)

    async def get_journal(self, run_id: str) -> Journal:
        """Clauses H."""
        return await self._read("get_journal", verbs.get_journal, run_id)

    async def listen(self, wake: Callable[[], object]) -> None:
        """Clauses W."""
        call_soon = call_soon_here()

        def wake_there() -> None:
            with suppress(RuntimeError):  # the event loop is gone
                call_soon(wake)

        with self._opened("listen").writing.watched(wake_there):
            await self._listeners.listen(wake)

    def statistics(self) -> LaneStatistics:
        """Commits since the file was opened, and the verbs that shared them; zeros while it is closed."""
        return LaneStatistics(0, 0) if self._open is None else self._open.writing.statistics()

    async def _write(self, name: str, verb: Verb[A, R], argument: A) -> R:
        return await self._opened(name).writing.submit(name, verb, argument)

    async def _read(self, name: str, verb: Verb[A, R], argument: A) -> R:
        return await self._opened(name).reading.submit(name, verb, argument)

    def _opened(self, verb: str) -> _Open:
        if self._open is None:
            raise StorageError(verb, f"{self.path} is not open; enter the engine, or await storage.initialize()")
        return self._open

    # ---- in a worker thread; the lock puts those who open and close at once in a row ---------------------------------

    def _ensure_open(self) -> None:
        with self._changing:
            if self._open is None:
                writer = open_writer(self.path, self.durability)
                try:
                    reader = open_reader(self.path)
                except BaseException:
                    writer.close()
                    raise
                self._open = _Open(Lane(writer, self.path, "begin immediate"), Lane(reader, self.path, "begin"))

    def _close_unused(self) -> None:
        with self._changing:
            if self._users == 0 and self._open is not None:
                closing, self._open = self._open, None
                closing.reading.close()
                closing.writing.close()


class _Open(NamedTuple):
    """What there is while the file is open."""

    writing: Lane
    reading: Lane
