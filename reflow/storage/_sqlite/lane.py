"""The lane: group commit. Verbs called concurrently share one thread hop and one transaction.

Model. Callers queue jobs. At any time at most one of them leads: it takes what is queued as a batch, has it applied in
a worker thread inside one `begin immediate` transaction, answers everybody in the batch, and hands the lead to the
first one queued meanwhile. There is no task of the lane's own, so a storage works wherever its verbs are awaited, and
nothing is left over when nobody calls.

Invariants. Jobs are applied in the order in which they were queued. A job is answered only after its transaction is
committed. A job that fails hurts only itself: the batch is rolled back and its jobs are redone one by one, each in a
transaction of its own. As long as anybody waits, somebody leads.

Cancellation. Waiting is shielded: a job that has been queued is carried out even if its caller is cancelled, so that
nobody is left not knowing half of what happened. A shield does not keep out asyncio's own `task.cancel()`, nor Ctrl-C.
Who is interrupted so leaves at once: a job still queued goes with it; a batch already taken is finished by its thread,
and whoever leads next waits for that, answers the others in the batch, and only then takes the next one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from pathlib import Path
from sqlite3 import Connection
from threading import Lock
from typing import Any, NamedTuple, TypeVar, cast

from anyio import CancelScope, CapacityLimiter, Event, to_thread
from anyio.lowlevel import checkpoint

from reflow.errors import StorageError
from reflow.storage._sqlite.connection import patiently, translated

__all__ = ["Lane", "LaneStatistics"]

T = TypeVar("T")

_LARGEST_BATCH = 1_000


class _Job:
    """One verb call: what to do, and what came of it."""

    __slots__ = ("do", "error", "is_awaited", "is_done", "result", "turn", "verb")

    def __init__(self, verb: str, do: Callable[[Connection], Any]) -> None:
        self.verb = verb
        self.do = do
        self.is_done = False
        self.is_awaited = True
        self.result: Any = None
        self.error: Exception | None = None
        # Set when the job is answered, or when its caller is to lead.
        self.turn = Event()


class _Batch:
    """Jobs that share a transaction. `is_applied` is guarded by the lock of the lane."""

    __slots__ = ("is_applied", "jobs")

    def __init__(self, jobs: list[_Job]) -> None:
        self.jobs = jobs
        self.is_applied = False


class LaneStatistics(NamedTuple):
    """What a lane has done so far: transactions that were committed, and the verbs that shared them."""

    commits: int
    verbs: int


class Lane:
    """The one way to write to a file from this process."""

    def __init__(self, db: Connection, path: Path, limiter: CapacityLimiter) -> None:
        self._db = db
        self._path = path
        self._limiter = limiter
        self._queue: list[_Job] = []
        self._batch = _Batch([])
        self._leader: _Job | None = None
        # Held by the thread that uses the connection: after an interruption there may be two for a moment.
        self._in_use = Lock()
        self._commits = 0
        self._verbs = 0

    def statistics(self) -> LaneStatistics:
        """What was done so far."""
        return LaneStatistics(self._commits, self._verbs)

    async def submit(self, verb: str, do: Callable[[Connection], T]) -> T:
        """Carry out `do` inside a transaction that is committed when this returns."""
        job = _Job(verb, do)
        self._queue.append(job)
        try:
            with CancelScope(shield=True):
                if self._leader is None:
                    self._leader = job
                else:
                    await job.turn.wait()
                while not job.is_done:
                    await self._advance()
        finally:
            self._leave(job)
        if job.error is not None:
            raise job.error
        return cast(T, job.result)

    def close(self) -> None:
        """Close the connection, after the batch that is being applied; for a thread."""
        with self._in_use:
            self._db.close()

    async def _advance(self) -> None:
        if not self._batch.jobs:
            # Whoever is ready to run now may join the batch.
            await checkpoint()
            self._batch = _Batch(self._queue[:_LARGEST_BATCH])
            del self._queue[:_LARGEST_BATCH]
        batch = self._batch
        try:
            await to_thread.run_sync(self._apply_once, batch, limiter=self._limiter)
        except Exception as error:
            for job in batch.jobs:
                job.error = StorageError(job.verb, f"no thread could be had: {error}")
                job.error.__cause__ = error
        self._batch = _Batch([])
        for job in batch.jobs:
            job.is_done = True
            job.turn.set()

    def _leave(self, job: _Job) -> None:
        job.is_awaited = False
        if not job.is_done:
            with suppress(ValueError):
                self._queue.remove(job)
        if self._leader is job:
            waiting = (other for other in chain(self._batch.jobs, self._queue) if other.is_awaited)
            self._leader = next(waiting, None)
            if self._leader is not None:
                self._leader.turn.set()

    # ---- in the worker thread ---------------------------------------------------------------------------------------

    def _apply_once(self, batch: _Batch) -> None:
        with self._in_use:
            if not batch.is_applied:
                batch.is_applied = True
                self._apply(batch.jobs)

    def _apply(self, jobs: list[_Job]) -> None:
        db = self._db
        try:
            patiently(lambda: db.execute("begin immediate"))
        except sqlite3.Error as error:
            # No job's fault; to try each by itself would wait as many times.
            for job in jobs:
                job.error = self._named(job, error)
            return
        try:
            for job in jobs:
                job.result = job.do(db)
            db.execute("commit")
            self._commits += 1
            self._verbs += len(jobs)
        except Exception as error:
            # SQLite has rolled back by itself after some errors (disk full, I/O).
            if db.in_transaction:
                db.execute("rollback")
            if len(jobs) == 1:
                jobs[0].error = self._named(jobs[0], error)
            else:
                for job in jobs:
                    self._apply([job])

    def _named(self, job: _Job, error: Exception) -> Exception:
        return translated(job.verb, self._path).of(error)
