"""The lane: group commit. Verbs called concurrently share one thread hop and one transaction.

Model. Callers queue jobs. At any time at most one of them leads: it takes what is queued as a batch, has it applied in
a worker thread inside one `begin immediate` transaction, answers everybody in the batch, and hands the lead to the
first one queued meanwhile. There is no task of the lane's own, so a storage works wherever its verbs are awaited, and
nothing is left over when nobody calls.

Invariants. Jobs are applied in the order in which they were queued. A job is answered only after its transaction is
committed. A job that fails hurts only itself: the batch is rolled back and its jobs are redone one by one, each in a
transaction of its own. Waiting is shielded: a job that has been queued is carried out even if its caller is cancelled,
so that nobody is left not knowing half of what happened.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from sqlite3 import Connection
from typing import Any, TypeVar, cast

from anyio import CancelScope, CapacityLimiter, Event, to_thread
from anyio.lowlevel import checkpoint

from reflow.errors import StorageError
from reflow.storage._sqlite.connection import patiently, translated

__all__ = ["Lane"]

T = TypeVar("T")

_LARGEST_BATCH = 1_000


class _Job:
    """One verb call: what to do, and what came of it."""

    __slots__ = ("do", "done", "error", "result", "turn", "verb")

    def __init__(self, verb: str, do: Callable[[Connection], Any]) -> None:
        self.verb = verb
        self.do = do
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None
        # Set when the job is answered, or when its caller is to lead.
        self.turn = Event()


class Lane:
    """The one way to write to a file from this process."""

    def __init__(self, db: Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self._queue: list[_Job] = []
        self._has_leader = False
        self._limiter = CapacityLimiter(1)

    async def submit(self, verb: str, do: Callable[[Connection], T]) -> T:
        """Carry out `do` inside a transaction that is committed when this returns."""
        job = _Job(verb, do)
        self._queue.append(job)
        with CancelScope(shield=True):
            if self._has_leader:
                await job.turn.wait()
            if not job.done:
                await self._lead()
        if job.error is not None:
            raise job.error
        return cast(T, job.result)

    async def _lead(self) -> None:
        self._has_leader = True
        # Whoever is ready to run now may join the batch.
        await checkpoint()
        batch, self._queue = self._queue[:_LARGEST_BATCH], self._queue[_LARGEST_BATCH:]
        try:
            await to_thread.run_sync(self._apply, batch, limiter=self._limiter)
        finally:
            for job in batch:
                job.done = True
                job.turn.set()
            if self._queue:
                self._queue[0].turn.set()
            else:
                self._has_leader = False

    # ---- in the worker thread ---------------------------------------------------------------------------------------

    def _apply(self, batch: list[_Job]) -> None:
        try:
            self._transact(batch)
        except Exception as error:
            if len(batch) > 1:
                for job in batch:
                    self._apply([job])
            else:
                batch[0].error = self._translated(batch[0].verb, error)

    def _transact(self, batch: list[_Job]) -> None:
        db = self._db
        patiently(lambda: db.execute("begin immediate"))
        try:
            for job in batch:
                job.result = job.do(db)
            db.execute("commit")
        except BaseException:
            # SQLite has rolled back by itself after some errors (disk full, I/O).
            if db.in_transaction:
                db.execute("rollback")
            raise

    def _translated(self, verb: str, error: Exception) -> Exception:
        if isinstance(error, sqlite3.Error):
            named = translated(verb, self._path).of(error)
            named.__cause__ = error
            return named
        if isinstance(error, (OverflowError, ValueError, TypeError)):
            named = StorageError(verb, str(error))
            named.__cause__ = error
            return named
        return error
