"""The lane: group commit. Verbs called concurrently share one thread hop and one transaction.

Model. A lane is a thread that owns a session, which is a connection with its transactions. Verbs called in one turn of
the event loop gather in a *batch*: the first caller waits for one turn, so that whoever is ready to run may join, and
hands the batch over. The thread takes all batches that have come in while it was busy, applies their jobs inside one
transaction, and wakes the callers, a whole batch by one signal. Neighbouring jobs of the same verb are applied by one
call, so that a verb can prepare its statements once for all of them.

Invariants. Jobs are applied in the order in which they were handed over. A job is answered only after its transaction
is committed. A job that fails hurts only itself: the transaction is rolled back and its jobs are redone one by one,
each in a transaction of its own; where the session knows a better chance (another connection, another order of things)
they are redone together before. Only what may have been done already is not redone: where a commit was sent and not
answered, all that share it fail.

Looking around. While somebody wants it, an idle thread calls what it was given fifty times a second, and a busy one
between transactions. This is how a file tells what other processes write.

Cancellation. A job that was called is carried out, whether its caller still waits or not: a caller that is cancelled,
or killed by asyncio's own `cancel()` or by Ctrl-C, only does not hear of it. Nobody else notices.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from queue import Empty, SimpleQueue
from threading import Lock, Thread, local
from typing import Any, NamedTuple, TypeVar

from reflow.errors import StorageError
from reflow.storage._sql.session import Database, Job, Session, Verb
from reflow.storage.loop import call_soon_here, next_turn, signal_here

__all__ = ["Lane", "LaneStatistics", "one_by_one"]

A = TypeVar("A")
R = TypeVar("R")

_LARGEST_TRANSACTION = 1_000
_LOOK_EVERY_S = 0.02


class _Batch:
    """Jobs called in one turn of an event loop, whose callers are woken together."""

    __slots__ = ("call_soon", "done", "jobs")

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.done = signal_here()
        self.call_soon = call_soon_here()

    def wake(self) -> None:
        """Tell the callers that their jobs have been answered; for another thread."""
        with suppress(RuntimeError):  # the event loop is gone, and everybody in it
            self.call_soon(self.done.set)


class _Gathering(local):
    """The batch that callers may still join: one for each event loop, so for each thread."""

    batch: _Batch | None = None


class LaneStatistics(NamedTuple):
    """What a lane has done so far: transactions that were committed, and the verbs that shared them."""

    commits: int
    verbs: int


class Lane:
    """The one way to use a session. `use` says in the name of the thread what it is for."""

    def __init__(self, session: Session, use: str) -> None:
        self._session = session
        self._gathering = _Gathering()
        self._inbox: SimpleQueue[_Batch | None] = SimpleQueue()
        self._is_closed = False
        self._handing_over = Lock()
        self._commits = 0
        self._verbs = 0
        self._looks: list[Callable[[], object]] = []
        self._thread = Thread(target=self._work, name=f"reflow {use} {session.name}", daemon=True)
        self._thread.start()

    def statistics(self) -> LaneStatistics:
        """What was done so far."""
        return LaneStatistics(self._commits, self._verbs)

    async def submit(
        self,
        name: str,
        verb: Verb[A, R],
        argument: A,
        *,
        runs: Sequence[str] = (),
        runs_again: Sequence[str] = (),
        is_news: bool = False,
    ) -> R:
        """The answer of `verb` to `argument`, from a transaction that is committed when this returns. `runs`,
        `runs_again` and `is_news` are told to the session, see `Job`."""
        job = Job(name, verb, argument, runs, runs_again, is_news)
        batch = self._gathering.batch
        if batch is None:
            batch = self._gathering.batch = _Batch()
            batch.jobs.append(job)
            try:
                await next_turn()
            finally:
                self._gathering.batch = None
                self._hand_over(batch)
        else:
            batch.jobs.append(job)
        await batch.done.wait()
        if job.error is not None:
            raise job.error
        answer: R = job.answer
        return answer

    @contextmanager
    def looking(self, look: Callable[[], object]) -> Generator[None]:
        """Have `look` called in the thread of the lane, whenever there is time but not all the time."""
        self._looks.append(look)
        # The thread may be waiting without a limit.
        self._hand_over(_Batch())
        try:
            yield
        finally:
            self._looks.remove(look)

    def close(self) -> None:
        """Finish what was handed over, then close the connection; blocks."""
        with self._handing_over:
            if not self._is_closed:
                self._is_closed = True
                self._inbox.put(None)
        self._thread.join()
        self._session.close()

    def _hand_over(self, batch: _Batch) -> None:
        with self._handing_over:
            if not self._is_closed:
                self._inbox.put(batch)
                return
        for job in batch.jobs:
            job.error = StorageError(job.name, f"{self._session.name} was closed")
        batch.done.set()

    # ---- in the thread ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while batches := self._next_batches():
            jobs = [job for batch in batches for job in batch.jobs]
            for first in range(0, len(jobs), _LARGEST_TRANSACTION):
                self._apply(jobs[first : first + _LARGEST_TRANSACTION])
            while batches:
                batches.pop().wake()
            # What they hold must not live until the next verb comes.
            del batches, jobs

    def _next_batches(self) -> list[_Batch]:
        """All batches that have come in, as far as a transaction holds them; none when the lane is closed."""
        batch = self._next_batch()
        if batch is None:
            return []
        batches, size = [batch], len(batch.jobs)
        while size < _LARGEST_TRANSACTION and not self._inbox.empty():
            batch = self._inbox.get()
            if batch is None:
                # Nothing comes after it; read it again when these are done.
                self._inbox.put(None)
                break
            batches.append(batch)
            size += len(batch.jobs)
        return batches

    def _next_batch(self) -> _Batch | None:
        while self._looks:
            for look in tuple(self._looks):
                look()
            with suppress(Empty):
                return self._inbox.get(timeout=_LOOK_EVERY_S)
        return self._inbox.get()

    def _apply(self, jobs: Sequence[Job], attempt: int = 0) -> None:
        session = self._session
        try:
            db = session.begin(jobs, attempt)
        except Exception as error:
            # No job's fault; to try each by itself would wait as many times.
            self._refuse(jobs, error)
            return
        try:
            for verb, same in groupby(jobs, _verb_of):
                _answer(db, verb, list(same))
            session.commit()
        except Exception as error:
            session.rollback()
            if session.is_worth_another(attempt, error):
                self._apply(jobs, attempt + 1)
            elif len(jobs) == 1 or session.is_in_doubt:
                self._refuse(jobs, error)
            else:
                for job in jobs:
                    self._apply([job])
        else:
            self._commits += 1
            self._verbs += len(jobs)

    def _refuse(self, jobs: Iterable[Job], error: Exception) -> None:
        for job in jobs:
            job.error = self._session.named(job.name, error)


def one_by_one(db: Database, calls: Sequence[Callable[[Database], R]]) -> list[R]:
    """The verb whose arguments are functions: calls them in turn. For whatever gains nothing by sharing more."""
    return [call(db) for call in calls]


def _verb_of(job: Job) -> Verb[Any, Any]:
    return job.verb


def _answer(db: Database, verb: Verb[Any, Any], jobs: list[Job]) -> None:
    for job, answer in zip(jobs, verb(db, [job.argument for job in jobs]), strict=True):
        job.answer = answer
