"""The contract's verbs over two lanes: one that writes, one that reads.

What writes goes through one lane (group commit), what reads through another, so that loading a long journal holds up no
commit; what is read in one transaction belongs together. SQLite and Postgres differ in how they open lanes, in the
verbs of `Writes`, and in how they hear of what other processes did.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from typing import Any, NamedTuple, Protocol, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread

from reflow._core.journal import Entry, Journal, Message
from reflow._core.status import RunStatus
from reflow.errors import StorageError
from reflow.storage._sql import verbs
from reflow.storage._sql.lane import Lane, LaneStatistics, one_by_one
from reflow.storage._sql.session import Database, Verb, named_by
from reflow.storage._sql.transactions import Transactions
from reflow.storage.listeners import Listeners, Wake
from reflow.storage.records import (
    Claimed,
    DueSchedules,
    Lease,
    NewRun,
    Page,
    Progress,
    RunCounts,
    RunFilter,
    RunRow,
    RunSignal,
    ScheduleRow,
)

__all__ = ["Lanes", "SQLStorage", "Writes"]

T = TypeVar("T")


class _ClaimRuns(Protocol):
    """Clauses D, inside a transaction."""

    def __call__(
        self,
        db: Database,
        workflows: Sequence[tuple[str, int]],
        limit: int,
        lease_id: str,
        now: int,
        lease_until: int,
    ) -> Claimed: ...


class _Heartbeat(Protocol):
    """Clauses E, inside a transaction."""

    def __call__(self, db: Database, leases: Sequence[Lease], lease_until: int) -> list[Lease]: ...


class Writes(NamedTuple):
    """The verbs that each database has its own statements for, because everything else waits for them."""

    create_runs: Verb[Sequence[NewRun], list[tuple[RunRow, bool]]]
    claim_runs: _ClaimRuns
    heartbeat: _Heartbeat
    save_progress: Verb[Progress, bool]


class Lanes(NamedTuple):
    """What there is while a storage is open."""

    writing: Lane
    reading: Lane
    transactions: Transactions


class SQLStorage(ABC):
    """The verbs. `_name` is what messages call the storage."""

    def __init__(self, name: str, writes: Writes) -> None:
        self._name = name
        self._writes = writes
        self._lanes: Lanes | None = None
        self._users = 0
        self._listeners = Listeners()
        self._changing = Lock()

    @abstractmethod
    def _open_lanes(self) -> Lanes:
        """Connect, and bring the tables up to date; in a worker thread."""

    @abstractmethod
    def _named(self, verb: str, error: Exception) -> Exception:
        """What an error of the driver is called outside."""

    async def initialize(self) -> None:
        """Connect, and bring the tables up to date (clauses A)."""
        self._users += 1
        try:
            with CancelScope(shield=True):
                await to_thread.run_sync(self._ensure_open, limiter=CapacityLimiter(1))
        except BaseException:
            self._users -= 1
            raise

    async def close(self) -> None:
        """Disconnect, once nobody who called `initialize` uses it any more (clauses B)."""
        self._users = max(0, self._users - 1)
        if self._users == 0 and self._lanes is not None:
            with CancelScope(shield=True):
                await to_thread.run_sync(self._close_unused)

    async def create_runs(self, runs: Sequence[NewRun]) -> list[tuple[RunRow, bool]]:
        """Clauses C."""
        self._listeners.wake()
        writing = self._opened("create_runs").writing
        return await writing.submit("create_runs", self._writes.create_runs, runs, is_news=True)

    async def claim_runs(
        self, workflows: Sequence[tuple[str, int]], *, limit: int, lease_id: str, now: int, lease_until: int
    ) -> Claimed:
        """Clauses D."""
        claim = partial(
            self._writes.claim_runs,
            workflows=workflows, limit=limit, lease_id=lease_id, now=now, lease_until=lease_until,
        )  # fmt: skip
        return await self._write("claim_runs", claim)

    async def heartbeat(self, leases: Sequence[Lease], *, lease_until: int) -> list[Lease]:
        """Clauses E."""
        heartbeat = partial(self._writes.heartbeat, leases=leases, lease_until=lease_until)
        return await self._write("heartbeat", heartbeat, *(lease.run_id for lease in leases))

    async def save_progress(self, progress: Progress) -> bool:
        """Clauses F."""
        if progress.ending and (problem := progress.ending.problem):
            raise StorageError("save_progress", problem)
        for run_id in progress.cancelled:
            self._listeners.wake(run_id)
        if progress.is_news:
            self._listeners.wake()
        own = (progress.lease.run_id,)
        runs, again = ((), own) if progress.is_plain else ((*own, *progress.cancelled), ())
        writing = self._opened("save_progress").writing
        return await writing.submit(
            "save_progress", self._writes.save_progress, progress, runs=runs, runs_again=again, is_news=progress.is_news
        )

    async def get_run(self, run_id: str) -> RunRow | None:
        """Clauses G."""
        return await self._read("get_run", partial(verbs.get_run, run_id=run_id))

    async def get_journal(self, run_id: str) -> Journal:
        """Clauses H."""
        return await self._read("get_journal", partial(verbs.get_journal, run_id=run_id))

    async def get_messages(self, run_id: str, *, after: int) -> list[Message]:
        """Clauses I."""
        return await self._read("get_messages", partial(verbs.get_messages, run_id=run_id, after=after))

    async def send_message(
        self, run_id: str, name: str, payload: bytes, *, now: int, message_id: str | None = None
    ) -> bool:
        """Clauses J."""
        self._listeners.wake(run_id)
        send = partial(verbs.send_message, run_id=run_id, name=name, payload=payload, now=now, message_id=message_id)
        return await self._write("send_message", send, run_id, is_news=True)

    async def request_cancel(self, run_id: str, *, now: int) -> bool:
        """Clauses K."""
        self._listeners.wake(run_id)
        request = partial(verbs.request_cancel, run_id=run_id, now=now)
        return await self._write("request_cancel", request, run_id, is_news=True)

    async def check_runs(self, run_ids: Sequence[str]) -> list[RunSignal]:
        """Clauses L."""
        # Behind the writes, so that what a hint was about is seen.
        return await self._write("check_runs", partial(verbs.check_runs, run_ids=run_ids))

    async def resume_run(self, run_id: str, *, generation: int, executions: int, keep: int, now: int) -> bool:
        """Clauses M."""
        self._listeners.wake()
        resume = partial(
            verbs.resume_run, run_id=run_id, generation=generation, executions=executions, keep=keep, now=now
        )
        return await self._write("resume_run", resume, run_id, is_news=True)

    async def get_cut_entries(self, run_id: str) -> list[Entry]:
        """Clauses N."""
        return await self._read("get_cut_entries", partial(verbs.get_cut_entries, run_id=run_id))

    async def list_runs(self, filter: RunFilter, *, limit: int, cursor: str | None = None) -> Page:
        """Clauses O."""
        return await self._read("list_runs", partial(verbs.list_runs, filter=filter, limit=limit, cursor=cursor))

    async def count_runs(self) -> RunCounts:
        """Clauses P."""
        return await self._read("count_runs", verbs.count_runs)

    async def prune(self, *, before: int, statuses: Sequence[RunStatus], limit: int) -> int:
        """Clauses Q."""
        return await self._write("prune", partial(verbs.prune, before=before, statuses=statuses, limit=limit))

    async def put_schedule(self, schedule: ScheduleRow) -> ScheduleRow:
        """Clauses R."""
        self._listeners.wake()
        return await self._write("put_schedule", partial(verbs.put_schedule, schedule=schedule), is_news=True)

    async def delete_schedule(self, key: str) -> bool:
        """Clauses S."""
        return await self._write("delete_schedule", partial(verbs.delete_schedule, key=key))

    async def pause_schedule(self, key: str, *, paused: bool, now: int) -> bool:
        """Clauses T."""
        return await self._write("pause_schedule", partial(verbs.pause_schedule, key=key, paused=paused, now=now))

    async def get_schedules(self) -> list[ScheduleRow]:
        """Clauses U."""
        return await self._read("get_schedules", verbs.get_schedules)

    async def due_schedules(self, workflows: Sequence[str], *, limit: int, now: int) -> DueSchedules:
        """Clauses V."""
        return await self._read(
            "due_schedules", partial(verbs.due_schedules, workflows=workflows, limit=limit, now=now)
        )

    async def fire_schedule(
        self, key: str, *, expected_next_at: int, next_at: int, runs: Sequence[NewRun], now: int
    ) -> bool:
        """Clauses W."""
        self._listeners.wake()
        fire = partial(
            verbs.fire_schedule, key=key, expected_next_at=expected_next_at, next_at=next_at, runs=runs, now=now
        )
        return await self._write("fire_schedule", fire, is_news=True)

    def transact(self, lease: Lease, position: str, name: str, body: Callable[[Any], bytes]) -> bytes:
        """See `Transactional`."""
        return self._opened("transact").transactions.perform(lease, position, name, body)

    async def listen(self, wake: Wake) -> None:
        """Clauses Y.

        Verbs of this adapter give the hint when they are called: a claim that is made because of it is carried out
        behind them, often in the same transaction.
        """
        self._opened("listen")
        await self._listeners.listen(wake)

    def statistics(self) -> LaneStatistics:
        """Commits since the storage was opened, and the verbs that shared them; zeros while it is closed."""
        return LaneStatistics(0, 0) if self._lanes is None else self._lanes.writing.statistics()

    async def _write(self, verb: str, do: Callable[[Database], T], *runs: str, is_news: bool = False) -> T:
        return await self._opened(verb).writing.submit(verb, one_by_one, do, runs=runs, is_news=is_news)

    async def _read(self, verb: str, do: Callable[[Database], T]) -> T:
        return await self._opened(verb).reading.submit(verb, one_by_one, do)

    def _opened(self, verb: str) -> Lanes:
        if self._lanes is None:
            raise StorageError(
                verb, f"{self._name} is not open; enter the engine or the client, or await storage.initialize()"
            )
        return self._lanes

    # ---- in a worker thread; the lock puts those who open and close at once in a row ---------------------------------

    def _ensure_open(self) -> None:
        with self._changing:
            if self._lanes is None:
                self._lanes = self._open_lanes()

    def _close_unused(self) -> None:
        with self._changing:
            if self._users == 0 and self._lanes is not None:
                closing, self._lanes = self._lanes, None
                with named_by(self._named, "close"):
                    self._close_lanes(closing)

    def _close_lanes(self, lanes: Lanes) -> None:
        lanes.transactions.close()
        lanes.reading.close()
        lanes.writing.close()
