"""`MemoryStorage`: the specification of the contract, in dictionaries. For tests; nothing survives the process.

It is no laxer than a database: what it is given goes through bytes and is checked on the way, so a test on memory does
not pass with a value that no column would take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from anyio.lowlevel import checkpoint
from msgspec import MsgspecError, Struct
from msgspec.msgpack import decode, encode
from msgspec.structs import replace

from reflow._core.journal import Entry, Journal, Timer
from reflow._core.status import RunStatus
from reflow.errors import StorageError
from reflow.storage.listeners import Listeners
from reflow.storage.records import Claimed, Lease, NewRun, Progress, RunRow

__all__ = ["MemoryStorage"]

T = TypeVar("T")


class _Journal(Struct):
    entries: list[Entry]
    timers: dict[str, Timer]


class MemoryStorage:
    """Keeps runs in this process, as bytes. Every verb is atomic because none waits in its middle."""

    def __init__(self) -> None:
        self._runs: dict[str, RunRow] = {}
        self._journals: dict[str, _Journal] = {}
        self._listeners = Listeners()

    async def initialize(self) -> None:
        """Nothing to make ready."""
        await checkpoint()

    async def close(self) -> None:
        """Nothing to let go of: another engine in this process may go on with the same object."""
        await checkpoint()

    async def create_run(self, run: NewRun) -> tuple[RunRow, bool]:
        """Clauses C."""
        await checkpoint()
        run = _stored("create_run", run, NewRun)
        if run.run_id in self._runs:
            return self._runs[run.run_id], False
        row = RunRow(
            run_id=run.run_id,
            workflow=run.workflow,
            version=run.version,
            rules=run.rules,
            status=RunStatus.PENDING,
            due_at=run.due_at,
            lease_id=None,
            executions=0,
            created_at=run.created_at,
            updated_at=run.created_at,
            input=run.input,
            output=None,
            error=None,
        )
        self._runs[run.run_id] = row
        self._journals[run.run_id] = _Journal([], {})
        self._listeners.wake()
        return row, True

    async def claim_runs(
        self, workflows: Sequence[tuple[str, int]], *, limit: int, lease_id: str, now: int, lease_until: int
    ) -> Claimed:
        """Clauses D."""
        await checkpoint()
        workflows = _stored("claim_runs", workflows, list[tuple[str, int]])
        limit, lease_id, now, lease_until = _stored(
            "claim_runs", (limit, lease_id, now, lease_until), tuple[int, str, int, int]
        )
        named = [row for row in self._runs.values() if (row.workflow, row.version) in workflows]
        waiting = sorted((row for row in named if row.due_at is not None), key=lambda row: row.due_at or 0)
        due = [row for row in waiting if row.due_at is not None and row.due_at <= now][:limit]
        claimed = [
            self._put(
                replace(
                    row,
                    status=RunStatus.RUNNING,
                    lease_id=lease_id,
                    due_at=lease_until,
                    executions=row.executions + 1,
                    updated_at=now,
                )
            )
            for row in due
        ]
        left = waiting[len(due) :]
        return Claimed(claimed, left[0].due_at if left else None)

    async def heartbeat(self, leases: Sequence[Lease], *, lease_until: int) -> list[Lease]:
        """Clauses E."""
        await checkpoint()
        leases, lease_until = _stored("heartbeat", (leases, lease_until), tuple[list[Lease], int])
        lost: list[Lease] = []
        for lease in leases:
            if row := self._held(lease):
                self._put(replace(row, due_at=lease_until))
            else:
                lost.append(lease)
        return lost

    async def save_progress(self, progress: Progress) -> bool:
        """Clauses F."""
        await checkpoint()
        progress = _stored("save_progress", progress, Progress)
        row = self._held(progress.lease)
        if row is None:
            return False
        if progress.ending and progress.ending.status is RunStatus.RUNNING:
            raise StorageError("save_progress", "a run cannot end as running")
        journal = self._journals[row.run_id]
        known = len(journal.entries) - progress.recorded
        if known < 0:
            raise StorageError("save_progress", f"entries of run {row.run_id!r} are missing")
        journal.entries.extend(progress.entries[known:])
        for timer in progress.timers:
            journal.timers[timer.position] = timer
        for position in progress.settled:
            journal.timers.pop(position, None)
        if ending := progress.ending:
            self._put(
                replace(
                    row,
                    status=ending.status,
                    lease_id=None,
                    due_at=ending.due_at,
                    updated_at=progress.now,
                    output=ending.output,
                    error=ending.error,
                )
            )
        return True

    async def get_run(self, run_id: str) -> RunRow | None:
        """Clauses G."""
        await checkpoint()
        return self._runs.get(_stored("get_run", run_id, str))

    async def get_journal(self, run_id: str) -> Journal:
        """Clauses H."""
        await checkpoint()
        journal = self._journals.get(_stored("get_journal", run_id, str)) or _Journal([], {})
        return Journal(list(journal.entries), [journal.timers[position] for position in sorted(journal.timers)])

    async def listen(self, wake: Callable[[], object]) -> None:
        """Clauses W."""
        await self._listeners.listen(wake)

    def _held(self, lease: Lease) -> RunRow | None:
        row = self._runs.get(lease.run_id)
        return row if row and row.lease_id == lease.lease_id else None

    def _put(self, row: RunRow) -> RunRow:
        self._runs[row.run_id] = row
        return row


def _stored(verb: str, value: Any, type: type[T]) -> T:
    """`value` as a database would give it back; StorageError where none would take it."""
    try:
        return decode(encode(value), type=type)
    except (MsgspecError, ValueError, TypeError, OverflowError) as error:
        raise StorageError(verb, str(error)) from error
